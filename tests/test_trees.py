"""Parameter trees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ldm_jax import trees
from ldm_jax.build import build

SPEC = dict(name='clip_text', vocab_size=50, context_length=6, width=8, num_layers=1, num_heads=2)


def test_shapes_are_those_of_fresh_parameters():
    model = build('models', SPEC)
    shapes = trees.shapes(model)
    params = trees.init(model, jax.random.key(0))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), params) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_count_and_names():
    tree = {'b': {'kernel': np.zeros((2, 3))}, 'a': np.zeros(4)}
    assert trees.count(tree) == 10
    assert list(trees.named(tree)) == ['a', 'b/kernel']


def test_logical_axes_become_shardings_by_rules_alone():
    axes = trees.logical_axes(build('models', SPEC))
    assert axes['layer_0']['attention']['q']['kernel'] == PartitionSpec('embed', 'heads')
    rules = (('heads', 'tensor'), ('embed', None))
    mapped = nn.logical_to_mesh_axes(tuple(axes['layer_0']['attention']['q']['kernel']), rules)
    assert mapped == PartitionSpec(None, 'tensor')


def test_cast_changes_floats_only():
    tree = trees.cast({'x': jnp.ones(2), 'n': jnp.ones(2, jnp.int32)}, jnp.bfloat16)
    assert tree['x'].dtype == jnp.bfloat16
    assert tree['n'].dtype == jnp.int32
