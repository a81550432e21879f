"""A diffusers folder as one table: '<subfolder>/<key>' <-> '<part>/<path>'.

Exported are the names of today's diffusers, which renames early ones when it loads them. Of the two forms that
transformers has had for CLIP's towers, exported is the one with the level 'text_model.' or 'vision_model.':
versions since 5.6 leave it out of a tower without projection but read both, and older ones read no other.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.checkpoints.diffusers import conditional_unet, pipelines
from ldm_jax.checkpoints.layouts import autoencoder, diffusers_unet, transformers_clip
from ldm_jax.checkpoints.layouts import bert as bert_layout
from ldm_jax.checkpoints.layouts import image_normalizer as image_normalizer_layout
from ldm_jax.checkpoints.layouts import taesd as taesd_layout
from ldm_jax.checkpoints.layouts.rules import Layout, Rule, prefixed
from ldm_jax.models import bert, image_normalizer, taesd, unet


def layout(settings: Mapping[str, Any], keys: Collection[str] | None = None) -> Layout:
    """The layout of a folder, for all parts of the settings.

    Args:
        settings: of the model, as `diffusers_json.read_settings` gives them.
        keys: those of the folder that is read, '<subfolder>/<key>', or bare in a folder of one model; its early
            names are recognized by them. None: the export, with names and subfolders that
            `diffusers_json.write_settings` describes.

    Raises:
        ValueError: keys is None, and diffusers has no pipeline for such a model.
    """
    models = build.parts(settings)
    kind = pipelines.kind_of(settings) if keys is None else None
    subfolders = _subfolders(models, keys) if kind is None else kind.subfolders
    rules: list[Rule] = []
    ignore = {}
    for part, model in models.items():
        prefix = f'{subfolders[part]}/' if subfolders[part] else ''
        there = None if keys is None else {key[len(prefix) :] for key in keys if key.startswith(prefix)}
        if part == 'unet':
            unclip = kind is not None and kind.pipeline == pipelines.UNCLIP
            found = _unet(model, there, unclip)
        else:
            found = _network(model, there)
        found = prefixed(found, torch=prefix, flax=f'{part}/')
        rules += found.rules
        ignore |= found.ignore
    if any(subfolders.values()):
        ignore |= {f'{name}/*': reason for name, reason in pipelines.LEFT.items()}
    return Layout(tuple(rules), ignore)


def _subfolders(parts: Collection[str], keys: Collection[str]) -> dict[str, str]:
    """part -> the subfolder that holds it, recognized by the keys; '' in a folder of one model."""
    have = {key.partition('/')[0] for key in keys if '/' in key}
    found = {}
    for part in parts:
        names = [name for name, there in pipelines.PARTS.items() if there == part]
        if part == 'text_encoder' and 'text_encoder_2' not in parts:
            names.append('text_encoder_2')  # the refiner has no other
        found[part] = next((name for name in names if name in have), names[0] if have else '')
    return found


def _unet(model: unet.Model, keys: Collection[str] | None, unclip: bool) -> Layout:
    if keys is not None:
        unclip = 'class_embedding.linear_1.weight' in keys
    found = diffusers_unet.layout(
        model,
        linear_projection=conditional_unet.linear_projection(model),
        vector_key='class_embedding' if unclip else 'add_embedding',
        old_attention=_is_old(keys),
    )
    return dataclasses.replace(found, rules=tuple(map(_any_projection, found.rules)))


def _network(model: Any, keys: Collection[str] | None) -> Layout:
    if isinstance(model, taesd.Model):
        return taesd_layout.layout(model, 'diffusers')
    if isinstance(model, image_normalizer.Model):
        return image_normalizer_layout.layout(model, 'diffusers')
    if isinstance(model, bert.Model):
        return bert_layout.layout(model, 'diffusers')
    if not hasattr(model, 'num_layers'):
        return autoencoder.layout(model, 'diffusers_old' if _is_old(keys) else 'diffusers')
    nested = keys is None or any(key.startswith(('text_model.', 'vision_model.')) for key in keys)
    found = transformers_clip.layout(model, nested)
    # Stable Diffusion 2 reads the last layer but one, and some of its files hold the last one too.
    last = re.compile(rf'((?:\w+_model\.)?encoder\.layers\.{model.num_layers}\.)')
    extra = {match[1] for match in map(last.match, keys or ()) if match}
    return Layout(
        found.rules,
        found.ignore | {f'{level}*': 'a layer after the last one that is used' for level in extra},
    )


def _is_old(keys: Collection[str] | None) -> bool:
    """Whether attention without context has its names of early diffusers: query, key, value, proj_attn."""
    return any('.attentions.' in key and key.endswith('.proj_attn.weight') for key in keys or ())


def _any_projection(rule: Rule) -> Rule:
    """The rule; where it is of a projection around transformers, it reads matrices and 1x1 convolutions alike."""
    if not re.search(r'attentions\.\d+\.proj_(in|out)\.weight$', rule.torch[0]):
        return rule

    def to_flax(arrays):
        weight = arrays[0]
        if weight.shape[2:] not in ((), (1, 1)):
            raise ValueError('expected a matrix, or a convolution of size 1')
        return (weight.reshape(weight.shape[:2]).T,)

    return dataclasses.replace(rule, to_flax=to_flax)
