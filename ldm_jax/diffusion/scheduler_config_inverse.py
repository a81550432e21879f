"""A sampler and a grid as the scheduler_config.json of diffusers that `scheduler_config.read` makes them of."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator
from typing import Any

from ldm_jax import build
from ldm_jax.diffusion import grids
from ldm_jax.diffusion.scheduler_config import SCHEDULERS, Spec, read

# Their field -> our field of a sampler, and our knob of a spacing.
SETTINGS = {
    'solver_type': 'solver_type',
    'lower_order_final': 'lower_order_final',
    'euler_at_final': 'euler_at_final',
    'predict_x0': 'predict_x0',
    'disable_corrector': 'disable_corrector',
    'skip_prk_steps': 'skip_prk_steps',
    'solver_order': 'max_order',
    'predictor_order': 'predictor',
    'corrector_order': 'corrector',
    'variance_type': 'variance',
}
KNOBS = {
    'steps_offset': 'steps_offset',
    'lambda_min_clipped': 'lambda_min',
    'sigma_min': 'sigma_min',
    'sigma_max': 'sigma_max',
    'original_inference_steps': 'original_steps',
    'rho': 'rho',
}
FLAGS = ('use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_lu_lambdas')
SPACINGS = ('linspace', 'leading', 'trailing')


def write(sampler: Spec, grid: Spec) -> Spec:
    """The config, `_class_name` included, that `read` takes for this sampler and grid.

    Every class and kind of grid is tried, so that `read` gives the same back.

    Raises ValueError where no class of diffusers does the same.
    """
    wanted = full(sampler, grid)
    for name in SCHEDULERS:
        for fields in _candidates(sampler['name'], *wanted):
            config = dict(_class_name=name, **fields)
            try:
                spec, spaced = read(config)
                if spec['name'] == sampler['name'] and full(spec, spaced) == wanted:
                    return config
            except ValueError:
                continue
    have = read(dict(_class_name='DDIMScheduler'))
    raise ValueError(
        f'No scheduler of diffusers does what {sampler} does on {grid}; {have[0]} on {have[1]} is one.'
    )


def full(sampler: Spec, grid: Spec) -> tuple[Any, grids.Grid, Spec]:
    """A sampler, and a grid with all the knobs of its spacing, as they compare."""
    made = grids.named(grid)
    parameters = inspect.signature(made.spacing).parameters.values()
    knobs = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | dict(made.knobs)
    return build.build('samplers', sampler), grids.named(grid | dict(name=grid['name'], **knobs)), knobs


def _candidates(name: str, sampler: Any, grid: grids.Grid, knobs: Spec) -> Iterator[Spec]:
    """Configs that may stand for a sampler and a grid: its fields by name, with every kind of grid."""
    own = {theirs: getattr(sampler, ours) for theirs, ours in SETTINGS.items() if hasattr(sampler, ours)}
    clip = getattr(sampler, 'clip_sample', math.inf)
    own |= dict(clip_sample=True, clip_sample_range=clip) if math.isfinite(clip) else dict(clip_sample=False)
    if name == 'unipc':
        own |= dict(solver_type=sampler.variant)
    elif name == 'dpmpp_2m_sde':
        own |= dict(algorithm_type='sde-dpmsolver++', solver_type=sampler.variant)
    elif hasattr(sampler, 'variant'):
        own |= dict(algorithm_type=sampler.variant)

    own |= {theirs: knobs[ours] for theirs, ours in KNOBS.items() if ours in knobs}
    own |= dict(set_alpha_to_one=grid.end == 'clean')
    own |= dict(final_sigmas_type='zero' if grid.end == 'clean' else 'sigma_min')
    if grid.interpolation == 'log_linear':
        own |= dict(interpolation_type='log_linear')
    if knobs.get('within') == 'leading':
        own |= dict(steps_offset=1)
    if knobs.get('last', 0.0) > 0:  # of a flow of 1000 steps
        share = (knobs['last'] + 1) / 1000
        own |= dict(shift=round(999 * share / (1 - share), 9))
    for spacing, flag in itertools.product(SPACINGS, (None, *FLAGS)):
        yield own | dict(timestep_spacing=spacing) | ({flag: True} if flag else {})
