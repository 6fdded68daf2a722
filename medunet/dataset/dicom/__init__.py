"""Import of DICOM files as NIfTI volumes with a manifest."""
