"""Levels to sample at (their times against diffusers are in tests/samplers/test_ddim.py)."""

import numpy as np
import pytest

from ldm_jax.diffusion import grids
from ldm_jax.schedules.scaled_linear import Schedule


@pytest.mark.parametrize('name', ['leading', 'trailing'])
@pytest.mark.parametrize('steps', [1, 3, 50, 333, 999, 1000])
def test_levels_fall_from_valid_times(name, steps):
    levels = grids.named(name)(Schedule(), steps)
    assert levels.t.shape == (steps + 1,)
    assert levels.t.min() >= 0
    assert levels.t.max() <= 999
    assert (np.diff(levels.sigma / levels.alpha) <= 0).all()


def test_trailing_starts_at_the_noisiest_level_and_ends_at_clean_data():
    levels = grids.trailing(Schedule(), 10)
    assert levels.t[0] == 999
    assert (float(levels.alpha[-1]), float(levels.sigma[-1])) == (1, 0)


def test_leading_ends_at_the_first_training_level():
    levels = grids.leading(Schedule(), 50)
    assert [float(t) for t in (levels.t[0], levels.t[-2])] == [981, 1]
    np.testing.assert_allclose(levels.alpha[-1] ** 2, 1 - 0.00085, rtol=1e-6)


@pytest.mark.parametrize('steps', [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f'1000.*{steps}'):
        grids.trailing(Schedule(), steps)


def test_an_unknown_grid_is_refused():
    with pytest.raises(ValueError, match="'training'.*'trailing'"):
        grids.named('training')
