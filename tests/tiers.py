"""Rows of a parametrization in the fast tier, and those that only the whole suite runs."""

import pytest


def fast(count, rows, single=False):
    """The rows, of which `count`, spread evenly from the first on, are in the fast tier and the rest is slow.

    single: each row is one argument, also where it is a tuple.
    """
    rows = list(rows)
    chosen = {round(index * len(rows) / count) for index in range(min(count, len(rows)))}
    return [row if index in chosen else _slow(row, single) for index, row in enumerate(rows)]


def _slow(row, single):
    values = row if isinstance(row, tuple) and not single else (row,)
    if hasattr(row, 'marks'):  # of pytest.param
        return pytest.param(*row.values, marks=(*row.marks, pytest.mark.slow), id=row.id)
    return pytest.param(*values, marks=pytest.mark.slow)
