"""Bootstrap intervals: as wide as theory says, narrower where scores are paired."""

import numpy as np
import pytest

from ldm_jax.evaluation import bootstrap


def test_an_interval_is_the_normal_one_for_many_images_and_covers_the_mean():
    random = np.random.default_rng(0)
    scores = random.standard_normal(1000) * 3 + 7
    low, high = bootstrap.interval(scores)
    assert (low + high) / 2 == pytest.approx(scores.mean(), abs=0.05)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(1000), rel=0.08)
    covered = [
        low <= 7 <= high
        for low, high in (
            bootstrap.interval(random.standard_normal(80) * 3 + 7, replicates=200) for _ in range(100)
        )
    ]
    assert np.mean(covered) > 0.87


def test_paired_differences_have_a_narrower_interval():
    random = np.random.default_rng(1)
    x = random.standard_normal(200) * 5
    y = x + 0.5 + 0.1 * random.standard_normal(200)
    low, high = bootstrap.interval(y - x)
    assert 0.4 < low < 0.5 < high < 0.6
    assert high - low < 0.1 * np.subtract(*bootstrap.interval(y)[::-1])
    with pytest.raises(ValueError, match='at least 2 scores'):
        bootstrap.interval(x[:1])
