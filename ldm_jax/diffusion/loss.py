"""The denoising loss, a pure function of parameters, batch and draws.

    loss = weight(level) mean over the image of distance(F(c_in x, c_noise) - target),  x = alpha x0 + sigma eps

The target of F (eps, v, x0, EDM's mixture, the velocity of flow matching) is the parameterization's business: all of
them are one loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax.build import function
from ldm_jax.diffusion import parameterization as parameterizations
from ldm_jax.diffusion import timestep_sampling as training_times
from ldm_jax.diffusion import weighting as weightings
from ldm_jax.diffusion.denoiser import Network
from ldm_jax.diffusion.parameterization import target
from ldm_jax.diffusion.process import add_noise, per_example
from ldm_jax.types import Array, Cond, NoiseLevel, PyTree, Schedule

UNIT = np.array([2.0**-24, 1 - 2.0**-24], np.float32)  # where u stays: quantiles are infinite at 0 and 1

Distance = Callable[[Array, NoiseLevel], Array]  # (error [B, ...], level [B]) -> the same shape


@struct.dataclass
class Draws:
    """All the randomness of one denoising step, drawn outside the loss."""

    t: Array  # [B] schedule times
    eps: Array  # [B, ...] noise, of the clean batch's shape
    perturbation: Array | None = None  # [B, ...] more noise on x, not in the target
    weight: Array | None = None  # [B] what the draw of t counts


def l2(error: Array, level: NoiseLevel) -> Array:
    """error^2."""
    return error**2


def l1(error: Array, level: NoiseLevel) -> Array:
    """|error|."""
    return jnp.abs(error)


def huber(
    error: Array, level: NoiseLevel, *, c: float = 0.1, schedule: str = 'snr', num_train_steps: int = 1000
) -> Array:
    """Pseudo-Huber, 2 c (sqrt(error^2 + c^2) - c): error^2 well below c, 2 c |error| well above.

    c falls from 1 at clean data to the given one at noise, where outliers are: with schedule 'snr' by the square of
    the signal's share, alpha^2 / (alpha + sigma)^2, with 'exponential' as c^(t / num_train_steps); 'constant' is
    one c for all. Ref: Khrapov et al. 2024, arXiv:2403.16728.
    """
    at = {
        'constant': lambda: jnp.full_like(level.sigma, c),
        'snr': lambda: c + (1 - c) * (level.alpha / (level.alpha + level.sigma)) ** 2,
        'exponential': lambda: c ** (level.t / num_train_steps),
    }
    c = per_example(function('huber schedule', at, schedule)(), error)
    return 2 * c * error**2 / (jnp.sqrt(error**2 + c**2) + c)  # without cancellation at small errors


DISTANCES: dict[str, Callable[..., Array]] = {'l2': l2, 'l1': l1, 'huber': huber}


def denoising(
    network: Network,
    schedule: Schedule,
    parameterization: parameterizations.Parameterization,
    x0: Array,
    cond: Cond,
    draws: Draws,
    distance: Distance = l2,
) -> Array:
    """The distance of the network's own prediction from its target, each image's mean: x0 [B, ...] -> [B], float32.

    With parameterization eps and l2 this is L_simple. Ref: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """
    level = schedule.level(draws.t)
    x = add_noise(x0, draws.eps, level)
    s = parameterization(level)
    seen = x if draws.perturbation is None else x + per_example(level.sigma, x) * draws.perturbation
    out = network(per_example(s.c_in, x) * seen, s.c_noise, cond)
    error = out - target(s, x, x0)
    error = error.astype(jnp.promote_types(error.dtype, jnp.float32))
    return jnp.mean(distance(error, level), axis=tuple(range(1, error.ndim)))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a diffusion model is trained to do, all but its network and data.

    offset_noise: noise of this deviation that is one for each channel of an image is added to eps, so that a mean
        can be learnt. Ref: Guttenberg 2023, "Diffusion with Offset Noise"; Podell et al. 2023, arXiv:2307.01952.
    perturbation: the network is shown eps with noise of this deviation added, and is to predict without.
        Ref: Ning et al. 2023, arXiv:2301.11706 (0.1 there).
    """

    schedule: Schedule
    parameterization: parameterizations.Parameterization
    times: training_times.Times
    distance: Distance = l2
    weighting: weightings.Weighting = weightings.uniform
    offset_noise: float = 0.0
    perturbation: float = 0.0

    def __post_init__(self):
        for field in ('offset_noise', 'perturbation'):
            if getattr(self, field) < 0:
                raise ValueError(f'{field} must be at least 0, which is none; got {getattr(self, field)}.')
        # The outermost levels that can be drawn, through everything, so that a mistake is met now.
        t, _ = self.times.draw(UNIT, self.schedule, self.times.init(self.schedule))
        ends = self.schedule.level(t)
        s = self.parameterization(ends)
        self.distance(jnp.zeros((2, 1)), ends)
        for name, values in [*s._asdict().items(), ('the weighting', self.weighting(ends, s))]:
            if not np.isfinite(np.asarray(values)).all():
                raise ValueError(
                    f'{name} is not finite at times that are drawn: {np.asarray(values)} at t = {np.asarray(ends.t)} '
                    f'with alpha {np.asarray(ends.alpha)} and sigma {np.asarray(ends.sigma)}. Where a schedule ends at '
                    "noise alone, let the network predict 'v', 'x0' or 'flow'."
                )

    def draw(
        self, key: Array, shape: Sequence[int], memory: PyTree = (), dtype: jnp.dtype = jnp.float32
    ) -> Draws:
        """The draws for clean images of a shape [B, ..., C], given the memory of `times`."""
        time, noise, offset, perturbation = jax.random.split(key, 4)
        u = jax.random.uniform(time, shape[:1], dtype)
        t, weight = self.times.draw(jnp.clip(u, *UNIT), self.schedule, memory)
        eps = jax.random.normal(noise, shape, dtype)
        if self.offset_noise:
            per_channel = (shape[0], *(1,) * (len(shape) - 2), shape[-1])
            eps = eps + self.offset_noise * jax.random.normal(offset, per_channel, dtype)
        more = (
            self.perturbation * jax.random.normal(perturbation, shape, dtype) if self.perturbation else None
        )
        return Draws(t=t, eps=eps, perturbation=more, weight=weight)

    def losses(self, network: Network, x0: Array, cond: Cond, draws: Draws) -> tuple[Array, Array]:
        """(losses, distances) of images x0 [B, ...], each [B]: with weights, and as the network's own errors are.

        The mean of losses is to be minimised. What the draw of a time counts is in neither: multiply by draws.weight.
        """
        distances = denoising(network, self.schedule, self.parameterization, x0, cond, draws, self.distance)
        level = self.schedule.level(draws.t)
        return self.weighting(level, self.parameterization(level)) * distances, distances


def objective(
    schedule: Schedule,
    *,
    parameterization: str | Mapping[str, Any],
    loss: str | Mapping[str, Any] = 'l2',
    weighting: str | Mapping[str, Any] = 'uniform',
    times: str | Mapping[str, Any] = 'uniform',
    offset_noise: float = 0.0,
    perturbation: float = 0.0,
) -> Objective:
    """The objective of specs, each a name or dict(name=..., **knobs).

    Raises ValueError for an unknown name or knob, and for an objective that is not finite on this schedule.
    """
    return Objective(
        schedule=schedule,
        parameterization=parameterizations.named(parameterization),
        times=training_times.named(times),
        distance=function('loss', DISTANCES, loss),
        weighting=weightings.named(weighting),
        offset_noise=offset_noise,
        perturbation=perturbation,
    )
