"""Means by bin, pooled over parts of a batch."""

import jax
import numpy as np

from ldm_jax.training.monitoring import metrics


def test_bins_are_means_of_what_falls_into_them():
    values, share = np.float32([1, 2, 3, 4, 5]), np.float32([0, 0.05, 0.1, 0.55, 1])
    found = metrics.arrays({'loss_t': metrics.by_bin(values, share)})
    expected = np.full(10, np.nan)
    expected[[0, 1, 5, 9]] = [1.5, 3, 4, 5]
    np.testing.assert_allclose(found['loss_t'], expected)
    np.testing.assert_array_equal(found['loss_t_count'], [2, 1, 0, 0, 0, 1, 0, 0, 0, 1])


def test_parts_pool_to_the_whole():
    values, share = np.random.default_rng(0).random((2, 12)).astype(np.float32)
    whole = metrics.arrays({'loss_t': metrics.by_bin(values, share), 'loss': values.mean()})
    parts = jax.vmap(lambda v, s: {'loss_t': metrics.by_bin(v, s), 'loss': v.mean()})(
        values.reshape(3, 4), share.reshape(3, 4)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), metrics.arrays(metrics.pool(parts)), whole
    )
