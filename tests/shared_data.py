"""Public data and weights that lie in a folder beside the repository, and are no part of it."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'shared' / 'data'


def shared(name):
    """The path of a file or folder of it; the test is skipped, by that name, where it is absent."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f'The shared data folder beside the repository lacks {name}.')
    return path
