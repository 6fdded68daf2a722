"""What can be wrong with a dataset: coded faults, how each is found, and what the user accepts."""
