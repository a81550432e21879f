"""Data sets that are made from published packages, in the form of tensorflow-datasets."""
