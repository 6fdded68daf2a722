"""From a tree of DICOM files to NIfTI volumes and a case list."""
