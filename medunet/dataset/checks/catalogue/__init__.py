"""Tables of the fault codes, one per group: meaning, measurement, expected value and fix of each code."""
