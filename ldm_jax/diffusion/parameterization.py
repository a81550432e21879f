"""What a network predicts, stated once for training and sampling:

    x0_hat = c_skip x + c_out F(c_in x, c_noise)

Ref: Karras et al. 2022, arXiv:2206.00364, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from ldm_jax.build import function
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, NoiseLevel


class Scalings(NamedTuple):
    """The four functions of the noise level, each of its leaves' shape."""

    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array


Parameterization = Callable[[NoiseLevel], Scalings]


def eps(level: NoiseLevel) -> Scalings:
    """F predicts the noise. Undefined at alpha = 0: pair zero-terminal-SNR schedules with v.

    Ref: Ho et al. 2020, arXiv:2006.11239, eq. 12.
    """
    return Scalings(1 / level.alpha, -level.sigma / level.alpha, jnp.ones_like(level.alpha), level.t)


def v(level: NoiseLevel) -> Scalings:
    """F predicts v = alpha eps - sigma x0. Ref: Salimans & Ho 2022, arXiv:2202.00512, appendix D."""
    total = level.alpha**2 + level.sigma**2
    return Scalings(level.alpha / total, -level.sigma / total, jnp.ones_like(level.alpha), level.t)


def x0(level: NoiseLevel) -> Scalings:
    """F predicts the clean image itself."""
    return Scalings(
        jnp.zeros_like(level.alpha), jnp.ones_like(level.alpha), jnp.ones_like(level.alpha), level.t
    )


def flow(level: NoiseLevel) -> Scalings:
    """F predicts the velocity eps - x0 of flow matching; its time input is the share of noise in thousandths.

    On a flow schedule that share is sigma, as in Stable Diffusion 3.
    Ref: Lipman et al. 2023, arXiv:2210.02747; Esser et al. 2024, arXiv:2403.03206, section 2.
    """
    total = level.alpha + level.sigma
    return Scalings(1 / total, -level.sigma / total, jnp.ones_like(level.alpha), 1000 * level.sigma / total)


def edm(level: NoiseLevel, *, sigma_data: float = 0.5) -> Scalings:
    """F's input and target have unit variance for data of standard deviation sigma_data, at every noise.

    Its time input is log(sigma / alpha) / 4, which is infinite at either end. Any scale of x will do: Karras'
    table is that of alpha = 1. Ref: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    signal = level.alpha * sigma_data
    total = signal**2 + level.sigma**2
    return Scalings(
        signal * sigma_data / total,
        level.sigma * sigma_data / jnp.sqrt(total),
        1 / jnp.sqrt(total),
        jnp.log(level.sigma / level.alpha) / 4,
    )


def edm_v(level: NoiseLevel, *, sigma_data: float = 1.0) -> Scalings:
    """As edm, with the sign of v: what SDXL's models of EDM noise predict (CosXL; 'edm_vpred' in their files)."""
    scalings = edm(level, sigma_data=sigma_data)
    return scalings._replace(c_out=-scalings.c_out)


PARAMETERIZATIONS: dict[str, Callable[..., Scalings]] = {
    each.__name__: each for each in (eps, v, x0, flow, edm, edm_v)
}


def named(spec: str | Mapping[str, Any]) -> Parameterization:
    """The parameterization of a name, 'eps', 'v', 'x0', 'flow', 'edm', 'edm_v', or of dict(name='edm', sigma_data=1.0).

    Raises ValueError for an unknown name or knob.
    """
    return function('parameterization', PARAMETERIZATIONS, spec)


def target(s: Scalings, x: Array, clean: Array) -> Array:
    """What F should output for noisy x and clean images [B, ...]."""
    return (clean - per_example(s.c_skip, x) * x) / per_example(s.c_out, x)
