"""Samples of networks whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import parameterization
from ldm_jax.schedules import scaled_linear, zero_terminal
from ldm_jax.training.stages.samples import Samples
from ldm_jax.types import Cond
from tests.tiers import fast

KEY = jax.random.key(0)
SHAPE = (3, 4, 4, 2)
VALUES = {False: 0.8, True: 0.2}  # dropped -> what the network believes all data to be


def cond(dropped):
    return Cond(vector=jnp.full((3, 1), VALUES[dropped]))


def network(schedule):
    """v of data that are all what the conditioning says."""

    def predict(x, t, cond):
        level = schedule.level(t)
        alpha, sigma = (jnp.reshape(a, (-1, 1, 1, 1)) for a in (level.alpha, level.sigma))
        x0 = cond.vector[:, :, None, None]
        return (alpha * x - x0) / sigma

    return predict


@pytest.mark.parametrize('schedule', fast(1, [zero_terminal.Schedule(), scaled_linear.Schedule()]))
@pytest.mark.parametrize(
    ('fields', 'guided', 'expected'),
    [({}, True, 0.2 + 3 * 0.6), (dict(guidance_scale=1.0), True, 0.8), ({}, False, 0.8)],
)
def test_a_perfect_network_gives_its_conditioning_guided_where_something_is_dropped(
    schedule, fields, guided, expected
):
    made = Samples(num_steps=5, **fields)
    v = parameterization.named('v')
    found = jax.jit(lambda: made.latents(network(schedule), v, schedule, cond, SHAPE, KEY, guided))()
    np.testing.assert_allclose(found, np.full(SHAPE, expected), rtol=1e-3)


def test_examples_and_prompts_take_turns():
    batch = {'tokens': np.array([[1], [2]]), 'size': np.array([[7], [8]])}
    tokenizers = {'tokens': lambda texts: np.array([[len(text)] for text in texts])}
    told = Samples(count=3).conditions(batch, tokenizers)
    assert told['tokens'].tolist() == [[1], [2], [1]]
    batch = {'context': np.zeros((2, 5, 4)), 'pooled': np.zeros((2, 4)), 'size': batch['size']}
    told = Samples(count=3, prompts=('a', 'bcd')).conditions(batch, tokenizers)
    assert told.keys() == {'tokens', 'size'}
    assert told['tokens'].tolist() == [[1], [3], [1]]
    assert told['size'].tolist() == [[7], [8], [7]]


def test_numbers_out_of_range_are_refused():
    for fields in (dict(count=-1), dict(num_steps=0)):
        with pytest.raises(ValueError, match='at least'):
            Samples(**fields)
