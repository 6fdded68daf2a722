"""medunet: segmentation of 3D medical volumes, from a folder of scans to a report."""

__version__ = "0.12.0"
