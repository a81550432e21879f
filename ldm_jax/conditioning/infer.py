"""The conditioning of models whose settings do not say it: other people's files, inferred from their networks.

A model that was trained here says it: settings['conditioning'].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ldm_jax import denoising

IMAGENET = 1000  # classes; a model with one more has that one for none
MAX_NOISE_LEVEL = 350  # of the x4 upscaler in training


def from_networks(models: Mapping[str, nn.Module], has_tokenizer: bool) -> dict[str, dict[str, Any]]:
    """The spec of a model's conditioning from its networks, as published models of that shape were trained.

    Args:
        models: by part.
        has_tokenizer: without one the text encoder reads layouts.
    """
    network = models['unet']
    widths = denoising.conditioned_on(network)
    channels = network.out_channels
    if 'rescaler' in models:
        return {'label_map': {}}
    if 'class_embedder' in models:
        has_null = models['class_embedder'].num_classes == IMAGENET + 1
        return {'class_label': dict(drop_rate=0.1 if has_null else 0.0)}
    if 'text_encoder' not in models and widths.context is None:
        if widths.label is not None:
            return {'class_label': {}}
        beside = {
            channels: {'low_resolution': dict(factor=_downscale(models))},
            channels + 1: {'inpainting': dict(form='latent_diffusion')},
        }
        return _channels(widths.concat, beside)
    if 'text_encoder' in models and not has_tokenizer:
        return {'boxes': {}}
    sdxl = 'text_encoder_2' in models
    text = dict(drop_rate=0.1, null='zeros' if sdxl else 'empty')
    found: dict[str, dict[str, Any]] = {'text': text}
    if 'image_encoder' in models:
        return found | {'image_embedding': dict(drop_rate=0.25)}
    if widths.vector is not None:
        encoder = models.get('text_encoder_2' if sdxl else 'text_encoder')
        projection = getattr(encoder, 'projection_width', None) or 0
        count = 6 if sdxl else 5
        text['pooled'] = True
        found['sizes'] = dict(count=count, width=(widths.vector - projection) // count)
    if widths.label is not None:
        level = min(MAX_NOISE_LEVEL, widths.label - 1)
        return found | {'low_resolution': dict(factor=_downscale(models), max_noise_level=level)}
    beside = {
        1: {'depth': {}},
        channels: {'source': dict(drop_rate=0.05)},
        channels + 1: {'inpainting': {}},
    }
    return found | _channels(widths.concat, beside)


def _channels(count: int | None, known: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    return {} if count is None else known.get(count, {'concat': {}})


def _downscale(models: Mapping[str, nn.Module]) -> int:
    return models['first_stage'].downscale if 'first_stage' in models else 1
