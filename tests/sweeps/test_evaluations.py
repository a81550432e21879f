"""How often samplers evaluate the network, against what their papers say."""

import pytest

from ldm_jax.inference.settings import Sampling
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.sweeps import evaluations


@pytest.mark.parametrize(
    ('sampler', 'grid', 'expected'),
    [
        ('euler', 'karras', 7),
        ('heun', 'karras', 13),  # the step to clean data is Euler's
        ('plms', 'trailing', 8),  # the first step costs two
        ('dpm_adaptive', 'karras', None),
    ],
)
def test_counts_of_seven_steps(sampler, grid, expected):
    found, levels = Sampling(sampler, grid=grid, num_steps=7).plan(Schedule())
    assert evaluations.count(found, levels) == expected


def test_as_many_steps_as_a_budget_allows():
    def heun(num_steps):
        return Sampling('heun', grid='karras', num_steps=num_steps)

    assert evaluations.steps_for(heun, Schedule(), 10) == (5, 9)
    assert evaluations.steps_for(heun, Schedule(), 1) == (1, 1)
    with pytest.raises(ValueError, match='chooses its own steps'):
        evaluations.steps_for(lambda n: Sampling('dpm_adaptive', num_steps=n), Schedule(), 5)
