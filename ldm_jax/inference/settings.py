"""How to sample: names and numbers of a run, checked before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import build
from ldm_jax.build import function, unknown
from ldm_jax.diffusion import aliases, grids, noise_sources
from ldm_jax.diffusion.guidance import RULES
from ldm_jax.inference.guidance import Guide
from ldm_jax.types import NoiseLevel, Sampler, Schedule, Solver

TABLE = 1024  # steps that a compiled program has space for
STARTS = ('noise', 'total')

Number = float | Sequence[float]  # one for all images, or one for each


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The settings of a run.

    Attributes:
        sampler: a name, ours or another tool's ('DPM++ 2M Karras'), or a spec dict(name='ddim', eta=1.0). A knob
            may be a list with a value for each image.
        grid: the levels, likewise; the sampler's own, or 'trailing', by default.
        num_steps: that the grid is made for.
        guidance_scale: 1 is no guidance; None asks the network once instead of twice, and knows no negative prompt.
        guidance_rule: 'linear', 'projected' (APG) or 'zero_star' (CFG-Zero*).
        guidance_rescale, apg_eta, apg_threshold, perturbed_scale: see `guidance.Guide`; None leaves it out.
        autoguidance_scale: away from the pipeline's weak model: 1 is none. It adds to a guidance_scale; where that is
            None it is alone.
        guidance_interval: lowest and highest sigma / alpha with guidance; one evaluation less outside.
        cfg_zero_share: share of flow matching's time, from the start, in which guided images stand still (CFG-Zero*).
        percentile: of dynamic thresholding, for first stages that leave images in [-1, 1] as they are.
        noise_source: of the starting noise: 'jax', 'torch_cpu' or 'torch_cuda' (diffusion.noise_sources).
        start: what starting noise is scaled by: the first level's 'noise', sigma, as k-diffusion and the web UI do
            for its samplers, or its 'total', hypot(alpha, sigma), as diffusers and the original DDIM do.

    Raises ValueError for names that there are not, and numbers out of range.
    """

    sampler: str | Mapping[str, Any] = 'dpmpp_2m'
    grid: str | Mapping[str, Any] | None = None
    num_steps: int = 20
    guidance_scale: Number | None = 7.5
    guidance_rule: str = 'linear'
    guidance_rescale: Number | None = None
    guidance_interval: tuple[float, float] | None = None
    apg_eta: Number | None = None
    apg_threshold: Number | None = None
    perturbed_scale: Number | None = None
    autoguidance_scale: Number | None = None
    cfg_zero_share: float | None = None
    percentile: float | None = None
    noise_source: str = 'jax'
    start: str = 'noise'

    def __post_init__(self):
        if self.num_steps < 1 or self.num_steps > TABLE:
            raise ValueError(f'num_steps must be from 1 to {TABLE}; got {self.num_steps}.')
        noise_sources.named(self.noise_source)
        if self.start not in STARTS:
            raise unknown('start', self.start, list(STARTS))
        function('rule of guidance', RULES, self.guidance_rule)
        if (
            self.guidance_interval is not None
            and not 0 <= self.guidance_interval[0] < self.guidance_interval[1]
        ):
            raise ValueError(f'guidance_interval must be 0 <= low < high; got {self.guidance_interval}.')
        if self.percentile is not None and not 0 < self.percentile <= 1:
            raise ValueError(f'percentile must be in (0, 1]; got {self.percentile}.')
        if self.cfg_zero_share is not None and not 0 < self.cfg_zero_share < 1:
            raise ValueError(f'cfg_zero_share must be in (0, 1); got {self.cfg_zero_share}.')
        if self.apg_threshold is not None and np.min(self.apg_threshold) <= 0:
            raise ValueError(f'apg_threshold must be above 0; got {self.apg_threshold}.')
        if self.guidance_rule != 'projected' and (self.apg_eta, self.apg_threshold) != (None, None):
            raise ValueError("apg_eta and apg_threshold are of the guidance_rule 'projected': give that too.")
        if self.autoguidance_scale is not None and self.perturbed_scale is not None:
            raise ValueError(
                'autoguidance_scale and perturbed_scale each push away from a worse prediction: give one of them.'
            )
        if (self.sampler, self.grid) != (type(self).sampler, type(self).grid):
            _built(self.specs()[0])  # the defaults stand in signatures, and are to import no sampler there

    def specs(self) -> tuple[dict[str, Any], dict[str, Any] | str]:
        """The specs of sampler and grid."""
        name, grid = self.sampler, self.grid
        knobs = {}
        if not isinstance(name, str):
            knobs = dict(name)
            name = knobs.pop('name')
        sampler, known = aliases.resolve(name, grid if isinstance(grid, str) else None)
        if grid is not None and not isinstance(grid, str):
            known = dict(grid)
        grids.named(known or 'trailing')  # raises for what there is not
        return sampler | knobs, known or 'trailing'

    def plan(self, schedule: Schedule) -> tuple[Sampler | Solver, NoiseLevel]:
        """The sampler, its knobs float32 [] or [B], and its levels, numpy arrays [S + 1]."""
        spec, grid = self.specs()
        sampler = _built(spec)
        grid = grids.named(grid)
        table = getattr(sampler, 'table', None)  # of samplers that walk more than a grid
        return sampler, table(schedule, grid, self.num_steps) if table else grid(schedule, self.num_steps)

    def guide(self, batch: int) -> Guide:
        """Guidance of so many images."""

        def each(value):
            return None if value is None else per_image(value, batch)

        return Guide(
            scale=each(self.guidance_scale),
            rescale=each(self.guidance_rescale),
            eta=each(self.apg_eta),
            threshold=each(self.apg_threshold),
            perturbed=each(self.perturbed_scale),
            auto=each(self.autoguidance_scale),
            rule=self.guidance_rule,
        )


def _built(spec: Mapping[str, Any]) -> Sampler | Solver:
    """The sampler of a spec, its knobs float32 [], or [B] where they are lists."""
    each = {key: value for key, value in spec.items() if isinstance(value, list | tuple)}
    sampler = build.build('samplers', spec | {key: value[0] for key, value in each.items()})
    sampler = jax.tree.map(np.float32, sampler)  # a knob of 1 and one of 1.0 are one program
    return sampler.replace(**{key: np.asarray(value, np.float32) for key, value in each.items()})


def per_image(value: Number, batch: int) -> np.ndarray:
    """A number, or one for each image, as float32 [B]. Raises ValueError for another count."""
    values = np.asarray(value, np.float32)
    if values.ndim and values.shape != (batch,):
        raise ValueError(f'{len(values)} numbers for {batch} images: give one for each, or one for all.')
    return np.broadcast_to(values, (batch,))
