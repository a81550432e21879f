"""What a network predicts, stated once for training and sampling:

    x0_hat = c_skip x + c_out F(c_in x, c_noise)

Ref: Karras et al. 2022, arXiv:2206.00364, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from ldm_jax.build import unknown
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
    """F predicts the clean picture itself."""
    return Scalings(
        jnp.zeros_like(level.alpha), jnp.ones_like(level.alpha), jnp.ones_like(level.alpha), level.t
    )


def named(name: str) -> Parameterization:
    """The parameterization of a name: 'eps', 'v' or 'x0'. Raises ValueError for another."""
    known = {'eps': eps, 'v': v, 'x0': x0}
    if name not in known:
        raise unknown('parameterization', name, sorted(known))
    return known[name]


def target(s: Scalings, x: Array, clean: Array) -> Array:
    """What F should output for noisy x and clean pictures [B, ...]."""
    return (clean - per_example(s.c_skip, x) * x) / per_example(s.c_out, x)
