"""How much each noise level counts in the loss.

A weighting multiplies |F - target|^2, the error of the network's own output. Papers state theirs for the error of
x0_hat or of eps_hat; with x0_hat = c_skip x + c_out F those are one error in other units,

    |x0 - x0_hat|^2 = c_out^2 |F - target|^2,    |eps - eps_hat|^2 = snr c_out^2 |F - target|^2,

so that a weighting is the same loss whatever the network predicts. 'uniform' alone is not: it is each
parameterization's own. All are up to what distribution the levels are drawn from, which weighs them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.build import function
from ldm_jax.diffusion.parameterization import Scalings
from ldm_jax.types import Array, NoiseLevel

Weighting = Callable[[NoiseLevel, Scalings], Array]


def uniform(level: NoiseLevel, s: Scalings) -> Array:
    """1: L_simple with eps, EDM's own loss with edm. Ref: Ho et al. 2020, arXiv:2006.11239, eq. 14."""
    return jnp.ones_like(level.sigma)


def min_snr(level: NoiseLevel, s: Scalings, *, gamma: float = 5.0) -> Array:
    """min(snr, gamma) on x0: low noise counts no more than that of snr gamma.

    At zero terminal SNR it is 0. Ref: Hang et al. 2023, arXiv:2303.09556.
    """
    return jnp.minimum(_snr(level), gamma) * s.c_out**2


def soft_min_snr(level: NoiseLevel, s: Scalings, *, gamma: float = 5.0) -> Array:
    """snr gamma / (snr + gamma) on x0: min_snr without its corner. Ref: Crowson et al. 2024, arXiv:2401.11605."""
    return gamma * _snr(level) / (_snr(level) + gamma) * s.c_out**2


def truncated_snr(level: NoiseLevel, s: Scalings) -> Array:
    """max(snr, 1) on x0. Ref: Salimans & Ho 2022, arXiv:2202.00512, section 4."""
    return jnp.maximum(_snr(level), 1.0) * s.c_out**2


def p2(level: NoiseLevel, s: Scalings, *, k: float = 1.0, gamma: float = 1.0) -> Array:
    """(k + snr)^-gamma on eps: less for the last, imperceptible noise. Ref: Choi et al. 2022, arXiv:2204.00227."""
    return _on_eps(level, s) / (k + _snr(level)) ** gamma


def edm(level: NoiseLevel, s: Scalings, *, sigma_data: float = 0.5) -> Array:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on x0, sigma as alpha = 1 has it.

    That is 1 with the parameterization edm. Ref: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    return (_snr(level) + 1 / sigma_data**2) * s.c_out**2


def sigmoid(level: NoiseLevel, s: Scalings, *, bias: float = 1.0) -> Array:
    """sigmoid(bias - log_snr) on eps; larger images want a lower bias (-1 to -3 in pixels).

    The papers' loss integrates over log_snr. Drawn uniformly in time a cosine schedule's levels are nearly
    uniform there but for both ends; other draws weigh by their own density beside this.
    Ref: Kingma & Gao 2023, arXiv:2303.00848; Hoogeboom et al. 2024, arXiv:2410.19324.
    """
    return _on_eps(level, s) * jax.nn.sigmoid(bias - jnp.log(_snr(level)))


def debiased(level: NoiseLevel, s: Scalings) -> Array:
    """1 / sqrt(snr) on eps: high noise counts more. Ref: Yu et al. 2023, arXiv:2310.08442."""
    return level.alpha / level.sigma * s.c_out**2


WEIGHTINGS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (uniform, min_snr, soft_min_snr, truncated_snr, p2, edm, sigmoid, debiased)
}


def named(spec: str | Mapping[str, Any]) -> Weighting:
    """The weighting of a name, or of dict(name='min_snr', gamma=3.0).

    Raises ValueError for an unknown name or knob.
    """
    return function('weighting', WEIGHTINGS, spec)


def _snr(level: NoiseLevel) -> Array:
    return (level.alpha / level.sigma) ** 2


def _on_eps(level: NoiseLevel, s: Scalings) -> Array:
    return _snr(level) * s.c_out**2
