"""Parts of one model in another: a text encoder for a file that has none, another first stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.build import unknown

Settings = Mapping[str, Any]

# What can be taken -> the parts that come along, and the settings that belong to them.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'text_encoder': (('text_encoder', 'text_encoder_2'), ('tokenizer', 'tokenizer_2', 'context_length')),
    'first_stage': (('first_stage',), ()),
}


def parts_of(group: str, settings: Settings, where: str) -> tuple[str, ...]:
    """The parts of a group that a model has. Raises ValueError when it has none of them."""
    if group not in GROUPS:
        raise unknown('part to take from another model', group, sorted(GROUPS))
    found = tuple(part for part in GROUPS[group][0] if part in settings['models'])
    if not found:
        raise ValueError(f'{where} has no {group} to take; it has {sorted(settings["models"])}.')
    return found


def taken(settings: Settings, group: str, other: Settings, where: str) -> dict[str, Any]:
    """The settings with a group of parts from another model's, in the place of their own.

    The scaling factor stays: it is that of the latents on which the U-Net was trained.

    Raises ValueError where the other model, which `where` names, has none.
    """
    parts, (group_parts, group_settings) = parts_of(group, other, where), GROUPS[group]
    models = {part: spec for part, spec in settings['models'].items() if part not in group_parts}
    models |= {part: other['models'][part] for part in parts}
    found = {key: value for key, value in settings.items() if key not in group_settings}
    found |= {key: other[key] for key in group_settings if key in other}
    found['models'] = models
    if found.get('scaling_factor') is None and other.get('scaling_factor') is not None:
        found['scaling_factor'] = other['scaling_factor']
    return found


def check_fit(settings: Settings, group: str, where: str) -> None:
    """Raises ValueError where the parts of a group, from the model that `where` names, do not fit the U-Net."""
    models = build.parts(settings)
    unet = models.get('unet')
    if unet is None:
        return
    if group == 'first_stage':
        channels = getattr(models['first_stage'], 'z_channels', unet.out_channels)
        if channels != unet.out_channels:
            raise ValueError(
                f'The first_stage of {where} makes latents of {channels} channels; the U-Net works on '
                f'{unet.out_channels}.'
            )
        return
    width = sum(models[part].width for part in GROUPS[group][0] if part in models)
    if unet.context_width != width:
        reads = 'reads no text' if unet.context_width is None else f'reads vectors {unet.context_width} wide'
        raise ValueError(f'The text encoder of {where} gives vectors {width} wide; the U-Net {reads}.')
