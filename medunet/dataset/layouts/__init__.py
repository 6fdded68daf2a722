"""Which file of a folder is which, in the layouts that datasets come in."""
