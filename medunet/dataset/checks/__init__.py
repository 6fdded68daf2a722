"""Check a dataset for faults: the catalogue of fault codes, the checks, and faults accepted by the user."""
