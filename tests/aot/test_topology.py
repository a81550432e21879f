"""Names of slices, and what is said without a compiler for them."""

import importlib.util

import pytest

from ldm_jax.aot import topology


@pytest.mark.parametrize(
    ('name', 'description', 'chips'),
    [  # cloud.google.com/tpu/docs, the tables of each version's configurations
        ('v5e-1', 'v5e:1x1', 1),
        ('v5e-4', 'v5e:2x2', 4),
        ('v5litepod-8', 'v5e:2x4', 8),
        ('v5e-16', 'v5e:4x4', 16),
        ('v5litepod-32', 'v5e:4x8', 32),
        ('v5e-64', 'v5e:8x8', 64),
        ('v5e-128', 'v5e:8x16', 128),
        ('v5litepod-256', 'v5e:16x16', 256),
        ('v6e-16', 'v6e:4x4', 16),
        ('v6e-256', 'v6e:16x16', 256),
        ('v4-8', 'v4:2x2x1', 4),
        ('v4-32', 'v4:2x2x4', 16),
        ('v5p-8', 'v5p:2x2x1', 4),
        ('v5p-16', 'v5p:2x2x2', 8),
        ('v5p-64', 'v5p:2x4x4', 32),
        ('v5p-128', 'v5p:4x4x4', 64),
        ('v5p-256', 'v5p:4x4x8', 128),
        ('v5p-512', 'v5p:4x8x8', 256),
        ('v5p-2048', 'v5p:8x8x16', 1024),
        ('v5p:4x4x12', 'v5p:4x4x12', 192),
        ('v5e:4x4', 'v5e:4x4', 16),
    ],
)
def test_names_of_the_cloud(name, description, chips):
    found = topology.named(name)
    assert (found.description, found.chips) == (description, chips)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('v5e', 'write one as'),
        ('v7e-16', "No TPU generation 'v7e'"),
        ('v5e-12', 'a power of two'),
        ('v5p-4', '8 or more'),
        ('v5p-384', 'v5p:4x4x4'),
        ('v5p:4x4', '3 sides'),
        ('v5e:0x4', '2 sides'),
    ],
)
def test_unknown_slices_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        topology.named(name)


def test_without_libtpu_it_is_said_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'libtpu' else find(name))
    with pytest.raises(topology.NoCompiler, match=r"pip install 'ldm_jax\[tpu\]'"):
        topology.named('v5e-4').devices()
