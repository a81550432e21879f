"""Learning rates by step, in closed form."""

import numpy as np
import pytest

from ldm_jax.training.lr_schedules import rate


def values(steps, **fields):
    schedule = rate(**(dict(lr=0.1, num_steps=100) | fields))
    return [float(schedule(n)) for n in steps]


@pytest.mark.parametrize(
    ('curve', 'steps', 'expected'),
    [
        ('constant', [0, 99], [0.1, 0.1]),
        ('linear', [0, 50, 100], [0.1, 0.05, 0]),
        (dict(name='linear', final_lr=0.02, hold=0.5), [49, 75, 100], [0.1, 0.06, 0.02]),
        (dict(name='cosine', final_lr=0.001), [0, 50, 100], [0.1, 0.0505, 0.001]),
        (dict(name='rsqrt', timescale=20), [19, 20, 80], [0.1, 0.1, 0.05]),
        (dict(name='steps', at=[10, 20], factor=0.5), [9, 11, 21], [0.1, 0.05, 0.025]),
    ],
)
def test_curves(curve, steps, expected):
    np.testing.assert_allclose(values(steps, curve=curve), expected, rtol=1e-5, atol=1e-9)


def test_the_rate_rises_then_falls():
    cosine = dict(name='cosine', final_lr=0.001)
    found = values([0, 5, 10, 55, 100], warmup_steps=10, curve=cosine)
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.0505, 0.001], rtol=1e-5, atol=1e-9)


def test_rsqrt_is_edm2_s():
    # lr / sqrt(max(t / t_ref, 1)), t counted after the warm-up
    steps = np.arange(0, 2000, 37)
    found = values(steps, num_steps=2000, curve=dict(name='rsqrt', timescale=70))
    np.testing.assert_allclose(found, 0.1 / np.sqrt(np.maximum(steps / 70, 1)), rtol=1e-5)


def test_mistakes_are_named():
    for fields, words in [
        (dict(curve=dict(name='linear', hold=1.0)), 'hold'),
        (dict(curve=dict(name='rsqrt', timescale=0)), 'timescale'),
        (dict(curve=dict(name='steps', gamma=1)), 'gamma'),
        (dict(warmup_steps=-1), 'warmup_steps'),
    ]:
        with pytest.raises(ValueError, match=words):
            values([0], **fields)


@pytest.mark.parametrize('warmup_steps', [100, 1000])
def test_a_warm_up_is_clipped_to_the_last_step_but_one(warmup_steps):
    np.testing.assert_allclose(values([0, 50], warmup_steps=warmup_steps), [0, 0.1 * 50 / 99], rtol=1e-5)
