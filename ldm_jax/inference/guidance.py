"""How much an image follows what it is told: the numbers of guidance, and the denoiser that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax.build import function
from ldm_jax.diffusion import guidance, parameterization
from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.types import Array, Cond, Denoiser


@struct.dataclass
class Guide:
    """Numbers of guidance, each [B]; None leaves it out. They are traced: which are None, and the rule, is a program.

    scale: of classifier-free guidance, for one conditioning more than itself.
    weights: of several prompts at once (AND), one for each, all guided by scale.
    image_scale: of the image, where image and text are guided apart (InstructPix2Pix).
    rescale: share of the answer that gets the conditional one's standard deviation.
    eta, threshold: of the rule 'projected'.
    perturbed: scale of perturbed-attention guidance.
    auto: scale of autoguidance: cond of the weak model + auto (cond - cond of the weak model), where there is no other
        scale.
    rule: 'linear', 'projected' (APG) or 'zero_star' (CFG-Zero*) of diffusion.guidance, or a dotted name: it makes a
        guidance.Rule of the scale.

    Raises ValueError for an unknown rule.
    """

    scale: Array | None = None
    weights: tuple[Array | np.ndarray, ...] | None = None
    image_scale: Array | None = None
    rescale: Array | None = None
    eta: Array | None = None
    threshold: Array | None = None
    perturbed: Array | None = None
    auto: Array | None = None
    rule: str = struct.field(pytree_node=False, default='linear')

    def __post_init__(self):
        function('rule of guidance', guidance.RULES, self.rule)

    @property
    def num_conds(self) -> int:
        """How many conditionings it makes one prediction of, the unconditional one first."""
        if self.scale is None:
            return 1
        told = 1 if self.weights is None else len(self.weights)
        return 1 + told + (self.image_scale is not None)


def denoiser(
    guide: Guide,
    predict: Callable[[Cond], Denoiser],
    conds: Sequence[Cond],
    prediction: Parameterization,
    *,
    worse: Callable[[Cond], Denoiser] | None = None,
    interval: tuple[Array, Array] | None = None,
    cfg_zero_share: Array | None = None,
    percentile: Array | None = None,
) -> Denoiser:
    """The denoiser of B images.

    Args:
        predict: a conditioning to the network's own denoiser.
        conds: as many as the guide wants, of B images each: unconditional, conditional; with an image scale
            neither, image alone, both. Perturbed guidance adds all but the first, their self-attention perturbed.
        prediction: what the network predicts, which rescaling and the rule 'zero_star' are stated for.
        worse: a conditioning to the weak model's denoiser, for autoguidance.
        interval: the lowest and highest sigma / alpha with guidance, each [].
        cfg_zero_share: [] share of flow matching's time in which guided images stand still.
        percentile: [] of dynamic thresholding, for images in [-1, 1] rather than latents.

    Raises ValueError for another number of conditionings.
    """
    if len(conds) != guide.num_conds:
        raise ValueError(f'This guidance is of {guide.num_conds} conditionings; got {len(conds)}.')
    found = _guided(guide, predict, conds, prediction, worse)
    if isinstance(found, guidance.Guided):
        if interval is not None:
            found = guidance.interval(found, _unguided(guide, predict, conds), *interval)
        if cfg_zero_share is not None:
            found = guidance.hold_still(found, 1 - cfg_zero_share)
    return found if percentile is None else guidance.thresholded(found, percentile)


def _branches(guide: Guide, predict: Callable[[Cond], Denoiser], conds: Sequence[Cond]) -> guidance.Branches:
    """Of the conditionings, several prompts made one, and of what guidance pushes away from."""
    if guide.perturbed is not None:
        count = len(conds)
        conds = [*conds, *conds[1:]]
        conds = [
            dataclasses.replace(cond, perturbed=_flags(cond, i >= count)) for i, cond in enumerate(conds)
        ]
    branches = guidance.batched(predict(guidance.pair(*conds)), len(conds))
    return branches if guide.weights is None else guidance.composed(branches, guide.weights)


def _unguided(guide: Guide, predict: Callable[[Cond], Denoiser], conds: Sequence[Cond]) -> Denoiser:
    """What is guided, alone: the last conditioning, which is told all, or several prompts as one."""
    if guide.weights is None:
        return predict(conds[-1])
    branches = _branches(dataclasses.replace(guide, perturbed=None), predict, conds)
    return lambda x, level: branches(x, level)[1]


def _flags(cond: Cond, value: bool) -> Array:
    return jnp.full(len(jax.tree.leaves(cond)[0]), value)


def _guided(
    guide: Guide,
    predict: Callable[[Cond], Denoiser],
    conds: Sequence[Cond],
    prediction: Parameterization,
    worse: Callable[[Cond], Denoiser] | None,
) -> Denoiser:
    if guide.scale is None:
        cond = predict(conds[0])
        return (
            cond
            if guide.auto is None or worse is None
            else guidance.autoguidance(cond, worse(conds[0]), guide.auto)
        )
    branches = _branches(guide, predict, conds)
    if guide.image_scale is not None:
        return guidance.image_and_text(branches, guide.image_scale, guide.scale)
    rule = _rule(guide)
    if guide.auto is not None and worse is not None:
        return guidance.perturbed(guidance.joined(branches, worse(conds[-1])), rule, guide.auto - 1)
    if guide.perturbed is not None:
        return guidance.perturbed(branches, rule, guide.perturbed)
    # APG is stated for x0_hat, the others for what the network itself predicts.
    return guidance.guided(branches, rule, parameterization.x0 if guide.rule == 'projected' else prediction)


def _rule(guide: Guide) -> guidance.Rule:
    knobs = {'eta': guide.eta, 'threshold': guide.threshold}
    given = {name: value for name, value in knobs.items() if value is not None}
    rule = function('rule of guidance', guidance.RULES, dict(name=guide.rule, **given))(guide.scale)
    return rule if guide.rescale is None else guidance.rescaled(rule, guide.rescale)
