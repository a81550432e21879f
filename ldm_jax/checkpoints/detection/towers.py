"""CLIP towers of a single file: the fields that shapes do not tell, from the family or from the width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.detection.families import HEAD_WIDTH, IMAGE_ACTIVATIONS, IMAGE_HEADS, MODEL, Tower


def text(fields: Mapping[str, Any], tower: Tower) -> dict[str, Any]:
    # A tower that OpenCLIP wrote is whole, and has its projection; one without was cut to the layers in use.
    whole = fields['num_layers'] == 24 or fields['projection_width'] is not None
    return dict(
        fields,
        num_layers=fields['num_layers'] - (tower.cut and whole),
        num_heads=_heads(fields['width'], 'text tower'),
        activation=tower.activation,
        projection_width=fields['projection_width'] if tower.projection else None,
        output_layer=tower.output_layer,
        final_norm=tower.final_norm,
    )


def image(fields: Mapping[str, Any]) -> dict[str, Any]:
    width = fields['width']
    if width not in IMAGE_ACTIVATIONS:
        raise ValueError(
            f'The activation of an image tower {width} wide is not known, only of {sorted(IMAGE_ACTIVATIONS)}. '
            f'{MODEL}'
        )
    return dict(fields, num_heads=IMAGE_HEADS, activation=IMAGE_ACTIVATIONS[width])


def _heads(width: int, what: str) -> int:
    if width % HEAD_WIDTH:
        raise ValueError(f'A {what} {width} wide does not split into heads of {HEAD_WIDTH}. {MODEL}')
    return width // HEAD_WIDTH
