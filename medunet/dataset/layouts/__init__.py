"""Recognise the folder layouts of datasets and assign files to cases as images and labels."""
