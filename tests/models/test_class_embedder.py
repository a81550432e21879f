"""The class embedder: a table, and its sizes."""

import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.models import class_embedder


@pytest.mark.parametrize('num_classes', [1000, 1001], ids=['cin256', 'cin256-v2'])
def test_published_sizes(num_classes):
    model = class_embedder.Model(num_classes=num_classes)
    assert trees.count(trees.shapes(model)) == 512 * num_classes


def test_a_label_is_a_context_of_one_token():
    model = class_embedder.Model(num_classes=5, width=3)
    params = {'embedding': {'embedding': np.arange(15, dtype=np.float32).reshape(5, 3)}}
    context = model.apply({'params': params}, np.array([4, 0, 4]))
    np.testing.assert_array_equal(context, params['embedding']['embedding'][np.array([4, 0, 4])][:, None])


def test_labels_that_are_none():
    model = class_embedder.Model()
    params = trees.shapes(model)
    with pytest.raises(ValueError, match=r'must be integers \[B\]; got int32\[2, 1\]'):
        model.apply({'params': params}, np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match='got float32'):
        model.apply({'params': params}, np.zeros(2, np.float32))
