"""Guidance maps denoisers to a denoiser, so it composes, and samplers never see it.

Three parts make one: `Branches` evaluate the network with and without conditioning, in one batch or apart; a
`Rule` makes one prediction of the two; `Guided` is the denoiser that comes out, which also gives samplers of the
CFG++ family the unguided prediction. Scales are [] or [B] and may be traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, Denoiser, NoiseLevel

# (x, level) -> x0_hats, the unconditional one first
Branches = Callable[[Array, NoiseLevel], Sequence[Array]]
# (uncond, cond) -> guided, each [B, ...]
Rule = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Guided:
    """A denoiser that knows what it would have said without guidance."""

    both: Callable[[Array, NoiseLevel], tuple[Array, Array]]  # (x, level) -> guided and unconditional x0_hat

    def __call__(self, x: Array, level: NoiseLevel) -> Array:
        return self.both(x, level)[0]


# Branches


def pair(*conds: Cond) -> Cond:
    """Two conditionings of B images as one of 2 B, the unconditional half first; or more, of n B."""
    return jax.tree.map(lambda *a: jnp.concatenate(a), *conds)


def batched(denoise: Denoiser, num: int = 2) -> Branches:
    """All branches from one evaluation: denoise takes num B images and is bound to `pair(uncond, cond, ...)`."""

    def branches(x: Array, level: NoiseLevel) -> Sequence[Array]:
        repeated = jax.tree.map(lambda a: jnp.concatenate([a] * num) if a.ndim else a, level)
        return jnp.split(denoise(jnp.concatenate([x] * num), repeated), num)

    return branches


def separate(*denoisers: Denoiser) -> Branches:
    """Each branch by a denoiser of its own: other networks, or memory for one batch only."""
    return lambda x, level: [denoise(x, level) for denoise in denoisers]


def joined(branches: Branches, denoise: Denoiser) -> Branches:
    """One branch more, by another network."""
    return lambda x, level: [*branches(x, level), denoise(x, level)]


def composed(branches: Branches, weights: Sequence[Array]) -> Branches:
    """Several prompts at once (AND) as one: uncond + sum_i weight_i (cond_i - uncond), for any rule to guide.

    Args:
        branches: of uncond and as many conds as there are weights; or of several such groups of conds, each of which
            becomes one.
        weights: [] or [B] each; a negative one takes a prompt away. With the linear rule a prompt's own scale is
            that of the rule times its weight, as in A1111's web UI.

    Ref: Liu et al. 2022, arXiv:2206.01714, eq. 11.
    """

    def one(uncond: Array, conds: Sequence[Array]) -> Array:
        pairs = zip(weights, conds, strict=True)
        return uncond + sum(per_example(weight, uncond) * (cond - uncond) for weight, cond in pairs)

    def fewer(x: Array, level: NoiseLevel) -> Sequence[Array]:
        uncond, *conds = branches(x, level)
        size = len(weights)
        return [uncond, *(one(uncond, conds[i : i + size]) for i in range(0, len(conds), size))]

    return fewer


# Denoisers


def guided(branches: Branches, rule: Rule, prediction: Parameterization = parameterization.x0) -> Guided:
    """Two branches made one by a rule.

    Args:
        prediction: what the rule is given: x0 by default. A rule that is linear with weights that add up to
            one gives the same for all; norms and standard deviations do not: diffusers takes those of the
            network's own prediction, ComfyUI's rescaling those of v.
    """

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        uncond, cond = branches(x, level)
        s = prediction(level)
        out = rule(*(parameterization.target(s, x, x0) for x0 in (uncond, cond)))
        return per_example(s.c_skip, x) * x + per_example(s.c_out, x) * out, uncond

    return Guided(both)


def classifier_free(both: Denoiser, scale: Array) -> Guided:
    """uncond + scale (cond - uncond), from one evaluation of twice the batch.

    Args:
        both: a denoiser of 2 B images that is bound to `pair(uncond, cond)`.
        scale: [] or [B]; 1 is no guidance, 0 unconditional.

    Linear in x0_hat as in eps, so every parameterization is guided alike.
    Ref: Ho & Salimans 2022, arXiv:2207.12598, eq. 6.
    """
    return guided(batched(both), linear(scale))


def autoguidance(good: Denoiser, bad: Denoiser, scale: Array) -> Guided:
    """bad + scale (good - bad): a worse model, less trained or smaller, in place of the unconditional one.

    Ref: Karras et al. 2024, arXiv:2406.02507.
    """
    return guided(separate(bad, good), linear(scale))


def image_and_text(branches: Branches, image_scale: Array, text_scale: Array) -> Guided:
    """uncond + image_scale (image - uncond) + text_scale (full - image): InstructPix2Pix.

    Args:
        branches: of uncond (neither), image (the image to edit alone) and full (image and text).

    Ref: Brooks et al. 2023, arXiv:2211.09800, eq. 3.
    """

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        uncond, image, full = branches(x, level)
        pull = per_example(image_scale, x) * (image - uncond) + per_example(text_scale, x) * (full - image)
        return uncond + pull, uncond

    return Guided(both)


def perturbed(branches: Branches, rule: Rule, scale: Array) -> Guided:
    """What the rule makes of uncond and cond, plus scale (cond - perturbed).

    Args:
        branches: of uncond, cond and perturbed. For perturbed-attention guidance the last one's network
            has the self-attention of some blocks replaced by the identity: one batch of three, with
            Cond.perturbed false, false and true, cond twice. It may skip layers instead, or be another, worse
            network: autoguidance beside classifier-free guidance.

    Ref: Ahn et al. 2024, arXiv:2403.17377.
    """

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        uncond, cond, worse = branches(x, level)
        return rule(uncond, cond) + per_example(scale, x) * (cond - worse), uncond

    return Guided(both)


# Denoisers of denoisers


def interval(denoise: Guided, cond: Denoiser, low: Array, high: Array) -> Guided:
    """Guidance only where low <= sigma / alpha <= high; elsewhere one evaluation of cond alone, of B images.

    low > 0 leaves out the unconditional half where there is little noise (A1111's s_min_uncond), high < inf at
    the start. CFG++ samplers get cond twice there. The level is one for all images.
    Ref: Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        # Multiplied out: alpha may be 0 and high inf.
        inside = (low * level.alpha <= level.sigma) & ((level.sigma <= high * level.alpha) | jnp.isinf(high))
        return jax.lax.cond(inside, denoise.both, lambda x, level: (cond(x, level),) * 2, x, level)

    return Guided(both)


def hold_still(denoise: Guided, above: Array) -> Guided:
    """Stands still, without an evaluation, where sigma / (alpha + sigma) > above: CFG-Zero*'s first steps.

    There the velocity eps - x0 is 0. `above` is the time of flow matching: 0.96 are the first 4 %.
    Ref: Fan et al. 2025, arXiv:2503.18886, section 4.2.
    """

    def still(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        return (x / (level.alpha + level.sigma),) * 2

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        early = level.sigma > above * (level.alpha + level.sigma)
        return jax.lax.cond(early, still, denoise.both, x, level)

    return Guided(both)


def thresholded(denoise: Denoiser, percentile: Array = 0.995, limit: Array = jnp.inf) -> Denoiser:
    """x0_hat clipped to [-s, s] and divided by s: its percentile of absolute values, from 1 to limit.

    For images in [-1, 1]; latents have no such range. Ref: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    def threshold(x0: Array) -> Array:
        s = jnp.quantile(jnp.abs(x0), percentile, axis=tuple(range(1, x0.ndim)), keepdims=True)
        s = jnp.clip(s, 1, limit)
        return jnp.clip(x0, -s, s) / s

    if not isinstance(denoise, Guided):
        return lambda x, level: threshold(denoise(x, level))

    def both(x: Array, level: NoiseLevel) -> tuple[Array, Array]:
        out, uncond = denoise.both(x, level)
        return threshold(out), threshold(uncond)

    return Guided(both)


# Rules


def linear(scale: Array) -> Rule:
    """uncond + scale (cond - uncond)."""
    return lambda uncond, cond: uncond + per_example(scale, cond) * (cond - uncond)


def rescaled(rule: Rule, share: Array) -> Rule:
    """A rule's answer with cond's standard deviation, each image's, mixed with itself: share (phi) 0.7 of it.

    Against the overexposure of high scales; stated for the network's prediction of v.
    Ref: Lin et al. 2024, arXiv:2305.08891, section 3.4.
    """

    def apply(uncond: Array, cond: Array) -> Array:
        out = rule(uncond, cond)
        axes = tuple(range(1, out.ndim))
        spread = jnp.maximum(jnp.std(out, axes, keepdims=True), 1e-12)
        ratio = jnp.std(cond, axes, keepdims=True) / spread
        return out * (1 + per_example(share, out) * (ratio - 1))

    return apply


def projected(scale: Array, *, eta: Array = 0.0, threshold: Array = jnp.inf) -> Rule:
    """cond + (scale - 1) (orthogonal + eta parallel): adaptive projected guidance, APG.

    cond - uncond, its norm limited to threshold, is split into a part parallel to cond, which saturates, and one
    orthogonal to it. eta = 1 without a threshold is the linear rule. Stated for x0_hat, without the paper's
    momentum: a rule has no memory between steps yet.
    Ref: Sadat et al. 2024, arXiv:2410.02416, algorithm 1.
    """

    def apply(uncond: Array, cond: Array) -> Array:
        pull = cond - uncond
        pull = pull * jnp.minimum(
            1, per_example(threshold, cond) / jnp.maximum(jnp.sqrt(_dot(pull, pull)), 1e-12)
        )
        parallel = _dot(pull, cond) / jnp.maximum(_dot(cond, cond), 1e-24) * cond
        return cond + per_example(scale - 1, cond) * (pull - parallel + per_example(eta, cond) * parallel)

    return apply


def zero_star(scale: Array) -> Rule:
    """s uncond + scale (cond - s uncond), s = <cond, uncond> / |uncond|^2, each image's: CFG-Zero*.

    Stated for the velocity of flow matching: give `guided` parameterization.flow.
    Ref: Fan et al. 2025, arXiv:2503.18886.
    """

    def apply(uncond: Array, cond: Array) -> Array:
        best = _dot(cond, uncond) / jnp.maximum(_dot(uncond, uncond), 1e-24) * uncond
        return linear(scale)(best, cond)

    return apply


RULES: dict[str, Callable[..., Rule]] = {rule.__name__: rule for rule in (linear, projected, zero_star)}


def _dot(a: Array, b: Array) -> Array:
    """Each image's inner product [B, 1, ...]."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)
