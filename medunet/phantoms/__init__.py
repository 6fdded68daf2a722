"""Synthetic patients, drawn with known outlines."""
