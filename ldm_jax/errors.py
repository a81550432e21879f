"""The one distinction that tools make among errors which are expected: how they were used, or work that failed."""


class Failed(ValueError):
    """Work that failed for no fault of how it was asked for: a damaged file, data that cannot be read, a lost run."""
