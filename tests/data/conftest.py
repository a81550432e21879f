"""Every test of data has a cache folder of its own."""

import pytest

from ldm_jax.cache import CACHE


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv(CACHE, str(folder))
    return folder
