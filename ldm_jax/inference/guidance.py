"""The numbers of guidance as arrays, and the denoiser that they make of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.build import function
from ldm_jax.diffusion import guidance as rules
from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.inference.settings import OWN, Guidance, Number
from ldm_jax.knobs import KNOB
from ldm_jax.types import Array, Cond, Denoiser

FIELDS = [field.name for field in dataclasses.fields(Guidance)]
# The numbers are traced: which of them are None, and the rule, is a program.
jax.tree_util.register_dataclass(Guidance, [name for name in FIELDS if name != 'rule'], ['rule'])


def arrays(guidance: Guidance, batch: int, own: float | None = None) -> Guidance:
    """The numbers as float32: [B] where each image has its own, [] where all share one.

    own: the scale that suits the model, where guidance leaves that open; autoguidance then is alone.

    Raises ValueError for sequences of another length.
    """
    found = {}
    for field in dataclasses.fields(guidance):
        value, knob = getattr(guidance, field.name), field.metadata.get(KNOB)
        if isinstance(value, str) and value == OWN:
            value = own if guidance.autoguidance_scale is None else None
        if value is None or isinstance(value, str):
            found[field.name] = value
        elif field.name == 'weights':
            found[field.name] = tuple(per_image(each, batch) for each in value)
        else:
            shared = knob is not None and knob.shared
            found[field.name] = _shared(value) if shared else per_image(value, batch)
    return Guidance(**found)


def embedded(guidance: Guidance, batch: int) -> Guidance:
    """The numbers for a network that takes the scales of B images: it is evaluated once. No scale is 1.

    Raises ValueError for other kinds of guidance, which need two evaluations.
    """
    others = ('image_scale', 'perturbed_scale', 'autoguidance_scale', 'rescale', 'interval', 'cfg_zero_share')
    if given := [name for name in others if getattr(guidance, name) is not None]:
        raise ValueError(
            f'This network has learned what guidance does, and takes the guidance scale alone: leave {given} out.'
        )
    return dataclasses.replace(
        guidance, scale=None, learned=per_image(1, batch) if guidance.scale is None else guidance.scale
    )


def split(guidance: Guidance) -> tuple[Guidance, Guidance]:
    """What belongs to each image, and what all of them share; None where it is the other's."""
    shared = {field.name for field in dataclasses.fields(guidance) if _is_shared(field)}
    each = dataclasses.replace(guidance, **dict.fromkeys(shared))
    return each, dataclasses.replace(guidance, **dict.fromkeys(set(FIELDS) - shared - {'rule'}))


def joined(each: Guidance, shared: Guidance) -> Guidance:
    """The guidance that `split` split."""
    shared = {
        field.name: getattr(shared, field.name) for field in dataclasses.fields(shared) if _is_shared(field)
    }
    return dataclasses.replace(each, **shared)


def _is_shared(field: dataclasses.Field) -> bool:
    return KNOB in field.metadata and field.metadata[KNOB].shared


def _shared(value: float | Sequence[float]) -> np.float32 | tuple[np.float32, ...]:
    return tuple(map(np.float32, value)) if isinstance(value, list | tuple) else np.float32(value)


def per_image(value: Number, batch: int) -> np.ndarray:
    """A number, or one for each image, as float32 [B]. Raises ValueError for another count."""
    values = np.asarray(value, np.float32)
    if values.ndim and values.shape != (batch,):
        raise ValueError(f'{len(values)} numbers for {batch} images: give one for each, or one for all.')
    return np.broadcast_to(values, (batch,))


def num_conds(guidance: Guidance) -> int:
    """How many conditionings it makes one prediction of, the unconditional one first."""
    if guidance.scale is None:
        return 1
    return 1 + len(guidance.weights or (1,)) + (guidance.image_scale is not None)


def denoiser(
    guidance: Guidance,
    predict: Callable[[Cond], Denoiser],
    conds: Sequence[Cond],
    prediction: Parameterization,
    *,
    weak: Callable[[Cond], Denoiser] | None = None,
) -> Denoiser:
    """The denoiser of B images.

    Args:
        predict: a conditioning to the network's own denoiser.
        conds: `num_conds` of them, for B images each: unconditional, conditional; with an image scale neither, image
            alone, both. Perturbed guidance adds all but the first, their self-attention perturbed.
        prediction: what the network predicts, which rescaling and the rule 'zero_star' are stated for.
        weak: a conditioning to the weak model's denoiser, for autoguidance.

    Raises ValueError for another number of conditionings.
    """
    if len(conds) != num_conds(guidance):
        raise ValueError(f'This guidance needs {num_conds(guidance)} conditionings; got {len(conds)}.')
    if guidance.learned is not None:
        conds = [dataclasses.replace(cond, guidance=_scales(cond, guidance.learned)) for cond in conds]
    found = _guided(guidance, predict, conds, prediction, weak)
    if isinstance(found, rules.Guided):
        if guidance.interval is not None:
            found = rules.interval(found, _unguided(guidance, predict, conds), *guidance.interval)
        if guidance.cfg_zero_share is not None:
            found = rules.hold_still(found, 1 - guidance.cfg_zero_share)
    return found if guidance.percentile is None else rules.thresholded(found, guidance.percentile)


def _branches(
    guidance: Guidance, predict: Callable[[Cond], Denoiser], conds: Sequence[Cond]
) -> rules.Branches:
    """The predictions of the conditionings, several prompts made one, and of those that guidance pushes away from."""
    if guidance.perturbed_scale is not None:
        count = len(conds)
        conds = [*conds, *conds[1:]]
        conds = [
            dataclasses.replace(cond, perturbed=_flags(cond, i >= count)) for i, cond in enumerate(conds)
        ]
    branches = rules.batched(predict(rules.pair(*conds)), len(conds))
    return branches if guidance.weights is None else rules.composed(branches, guidance.weights)


def _unguided(guidance: Guidance, predict: Callable[[Cond], Denoiser], conds: Sequence[Cond]) -> Denoiser:
    """The guided prediction alone: that of the last conditioning, which is complete, or of several prompts as one."""
    if guidance.weights is None:
        return predict(conds[-1])
    branches = _branches(dataclasses.replace(guidance, perturbed_scale=None), predict, conds)
    return lambda x, level: branches(x, level)[1]


def _scales(cond: Cond, scale: Array) -> Array:
    return jnp.broadcast_to(scale, len(jax.tree.leaves(cond)[0]))


def _flags(cond: Cond, value: bool) -> Array:
    return jnp.full(len(jax.tree.leaves(cond)[0]), value)


def _guided(
    guidance: Guidance,
    predict: Callable[[Cond], Denoiser],
    conds: Sequence[Cond],
    prediction: Parameterization,
    weak: Callable[[Cond], Denoiser] | None,
) -> Denoiser:
    if guidance.scale is None:
        cond = predict(conds[0])
        return (
            cond
            if guidance.autoguidance_scale is None
            else rules.autoguidance(cond, weak(conds[0]), guidance.autoguidance_scale)
        )
    branches = _branches(guidance, predict, conds)
    if guidance.image_scale is not None:
        return rules.image_and_text(branches, guidance.image_scale, guidance.scale)
    rule = _rule(guidance)
    if guidance.autoguidance_scale is not None:
        return rules.perturbed(rules.joined(branches, weak(conds[-1])), rule, guidance.autoguidance_scale - 1)
    if guidance.perturbed_scale is not None:
        return rules.perturbed(branches, rule, guidance.perturbed_scale)
    # APG is stated for x0_hat, the others for what the network itself predicts.
    return rules.guided(branches, rule, parameterization.x0 if guidance.rule == 'projected' else prediction)


def _rule(guidance: Guidance) -> rules.Rule:
    numbers = {'eta': guidance.apg_eta, 'threshold': guidance.apg_threshold}
    given = {name: value for name, value in numbers.items() if value is not None}
    rule = function('rule of guidance', rules.RULES, dict(name=guidance.rule, **given))(guidance.scale)
    return rule if guidance.rescale is None else rules.rescaled(rule, guidance.rescale)
