"""The faults that have a code, one table a family: what each means, how it is measured and how to fix it."""
