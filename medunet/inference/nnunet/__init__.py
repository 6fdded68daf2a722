"""Models of nnU-Net v2: reading its results folders, and predicting by its rules"""
