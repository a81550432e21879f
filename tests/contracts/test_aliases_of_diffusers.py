"""Each alias of a diffusers scheduler beside the class it names: same network, same noise, through the alias table."""

import pytest

from ldm_jax.diffusion import aliases
from tests import diffusers_schedulers as walks

pytest.importorskip('torch')
pytest.importorskip('diffusers')
pytestmark = pytest.mark.filterwarnings('ignore')

STEPS = (1, 2, 5, 17, 50)
# The scheduler of Stable Diffusion's repositories, whose config another class takes over in its place.
STABLE_DIFFUSION = walks.BETAS | dict(
    set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False, steps_offset=1, num_train_timesteps=1000
)
NAMES = [name for name in aliases.SAMPLERS if name.endswith('Scheduler')]
ELSEWHERE = {'IPNDMScheduler'}  # whose levels are its own: samplers/test_diffusers.py
FAST = {'DDIMScheduler', 'EulerDiscreteScheduler', 'UniPCMultistepScheduler'}


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NAMES if name not in ELSEWHERE],
)  # fmt: skip
def test_an_alias_does_what_its_class_does(name):
    own_schedule = name.startswith(('EDM', 'FlowMatch'))
    config = {} if own_schedule else STABLE_DIFFUSION
    for steps, error in walks.errors(name, config, *aliases.resolve(name), STEPS).items():
        assert error < 1e-5, steps


@pytest.mark.parametrize('gamma', [0.0, 0.3, 1.0])
def test_tcd_does_at_any_gamma(gamma):
    spec, grid = aliases.resolve('TCDScheduler')
    found = walks.errors('TCDScheduler', STABLE_DIFFUSION, spec | dict(gamma=gamma), grid, STEPS, eta=gamma)
    assert max(found.values()) < 1e-5, found
