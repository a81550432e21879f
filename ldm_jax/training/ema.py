"""Moving averages of parameters, several at once; those of a power function become any other after the run.

    average <- decay(n) average + (1 - decay(n)) params        after update n = 1, 2, ...

A profile is the weight that an average at step T gives to the parameters after step t: of a constant decay it is
exponential in t, of a power function p(t) = (gamma + 1) t^gamma / T^(gamma + 1). The latter's width is stated as
sigma_rel, its standard deviation over T, which does not depend on T: 0.05 averages over the last tenth or so of
training however long that was. From snapshots of two or more of them along the run, least squares makes the
average of any other width, and as of any earlier step.

Ref: Karras et al. 2024, arXiv:2312.02696 (EDM2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.build import function
from ldm_jax.types import Array, PyTree

POWER_WIDTH = 0.05  # sigma_rel where a spec says none
MAIN = 'main'  # the average that images are made with and that is exported

# n, the update that was just made, from 1 -> the share of the average that is kept.
Decay = Callable[[Array], Array]


def constant(n: Array, *, decay: float = 0.9999, warmup: bool = True) -> Array:
    """`decay`, reached from below: min(decay, (n + 1) / (n + 10)), as in latent diffusion; at once without warm-up.

    Raises ValueError for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f'The decay of an average must be at least 0 and below 1; got {decay}.')
    return jnp.minimum(decay, (n + 1) / (n + 10)) if warmup else jnp.asarray(decay, float)


def half_life(n: Array, *, steps: float, ramp: float | None = 0.05) -> Array:
    """Half the weight in the last `steps` updates, or a share `ramp` of all so far if that is fewer.

    Ref: Karras et al. 2022, arXiv:2206.00364; there both count images.
    """
    if steps <= 0 or (ramp is not None and ramp <= 0):
        raise ValueError(f'A half-life and its ramp must be above 0; got steps={steps}, ramp={ramp}.')
    return 0.5 ** (1 / (steps if ramp is None else jnp.minimum(steps, ramp * n)))


def power(n: Array, *, sigma_rel: float = POWER_WIDTH) -> Array:
    """(1 - 1 / n)^(gamma + 1): the power function's profile. Ref: EDM2, eq. 127."""
    return (1 - 1 / n) ** (exponent(sigma_rel) + 1)


DECAYS: dict[str, Callable[..., Array]] = {decay.__name__: decay for decay in (constant, half_life, power)}


def named(spec: str | Mapping[str, Any]) -> Decay:
    """The decay of a name, or of dict(name='constant', decay=0.999).

    Raises ValueError for an unknown name or knob, and for a value out of range.
    """
    decay = function('moving average', DECAYS, spec)
    decay(np.float32(1))  # so that a value out of range is met now
    return decay


def update(decays: Mapping[str, Decay], averages: Mapping[str, PyTree], params: PyTree, n: Array) -> PyTree:
    """The averages by name after update n, which has led to params."""

    def blend(name):
        keep = jnp.asarray(decays[name](jnp.maximum(n, 1).astype(float)), jnp.float32)
        return jax.tree.map(
            lambda old, new: new + keep.astype(new.dtype) * (old - new), averages[name], params
        )

    return {name: blend(name) for name in decays}


# The power function


def exponent(sigma_rel: float) -> float:
    """gamma, above -1, of a relative width. Ref: EDM2, eq. 126.

    Raises ValueError outside (0, 0.2886), where no power function that rises has that width.
    """
    if not 0 < sigma_rel < 12**-0.5:  # gamma = 0 is the mean of all, uniform on [0, 1]
        raise ValueError(
            f'sigma_rel must be above 0 and below {12**-0.5:.4f}, the mean of all; got {sigma_rel}.'
        )
    # (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = sigma_rel^2
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def width(gamma: float) -> float:
    """sigma_rel of an exponent: the inverse of `exponent`. Ref: EDM2, eq. 123."""
    return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))


@dataclasses.dataclass(frozen=True)
class Profile:
    """A power-function average after `step` updates."""

    step: int
    sigma_rel: float

    def __post_init__(self):
        if self.step < 1:
            raise ValueError(f'A profile is of step 1 or later; got {self.step}.')
        exponent(self.sigma_rel)


def inner(a: Profile, b: Profile) -> float:
    """The integral of the product of two profiles over time. Ref: EDM2, eq. 151."""
    early, late = (a, b) if a.step <= b.step else (b, a)
    p, q = exponent(early.sigma_rel), exponent(late.sigma_rel)
    return (p + 1) * (q + 1) * (early.step / late.step) ** q / ((p + q + 1) * late.step)


def coefficients(snapshots: Sequence[Profile], wanted: Profile) -> np.ndarray:
    """The weights [S] with which snapshots add up to the wanted profile, least squares; they sum to one.

    Ref: EDM2, algorithm 3.

    Raises ValueError without snapshots, for two of one profile, and for a step beyond the last of them.
    """
    if not snapshots or len(set(snapshots)) < len(snapshots):
        raise ValueError(f'Reconstruction needs snapshots, all of them different; got {list(snapshots)}.')
    last = max(snapshot.step for snapshot in snapshots)
    if wanted.step > last:
        raise ValueError(
            f'The last snapshot is of step {last}; an average as of step {wanted.step} is not in them.'
        )
    gram = np.array([[inner(a, b) for b in snapshots] for a in snapshots])
    right = np.array([inner(a, wanted) for a in snapshots])
    # Unit diagonal: early snapshots are far narrower than late ones.
    scale = 1 / np.sqrt(np.diag(gram))
    found = scale * np.linalg.lstsq(gram * scale[:, None] * scale, right * scale, rcond=1e-14)[0]
    return found / found.sum()


def misfit(snapshots: Sequence[Profile], weights: Sequence[float], wanted: Profile) -> float:
    """How far the weighted snapshots' profile is from the wanted one, relative, in the norm of L2: 0 is exact."""
    gram = np.array([[inner(a, b) for b in snapshots] for a in snapshots])
    right = np.array([inner(a, wanted) for a in snapshots])
    weights = np.asarray(weights)
    square = weights @ gram @ weights - 2 * weights @ right + inner(wanted, wanted)
    return float(np.sqrt(max(square, 0.0) / inner(wanted, wanted)))


def reconstruct(weights: Sequence[float], trees: Iterable[PyTree]) -> PyTree:
    """The sum of trees with weights, in float64 and back; trees are taken one at a time."""
    total, dtypes = None, None
    for weight, tree in zip(weights, trees, strict=True):
        term = jax.tree.map(lambda a, w=weight: w * np.asarray(a, np.float64), tree)
        dtypes = jax.tree.map(lambda a: a.dtype, tree) if dtypes is None else dtypes
        total = term if total is None else jax.tree.map(np.add, total, term)
    return jax.tree.map(lambda a, dtype: a.astype(dtype), total, dtypes)
