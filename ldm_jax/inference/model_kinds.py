"""What a model is conditioned on, and so which tasks it is for.

A model that was trained here says it in its settings (`settings['conditioning']`); of others' files it is inferred from
the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from ldm_jax import denoising

if TYPE_CHECKING:
    from ldm_jax.inference.model import Parts

# Kind of model -> (its conditioning in words, the tasks for it).
KINDS = {
    'text': ('a text', 'text_to_image, image_to_image, inpaint, outpaint, hires, refine or invert'),
    'inpaint': ('a text, a mask and an image with a hole', 'inpaint or outpaint'),
    'edit': ('a text and an image', 'edit'),
    'depth': ('a text and a depth map', 'depth_to_image'),
    'upscale': ('a text, a small image and its noise level', 'upscale'),
    'variation': ("a text and an image's embedding", 'variations'),
    'class': ('a class', 'class_to_image'),
    'unconditional': ('nothing', 'unconditional'),
    'super_resolution': ('a small image', 'super_resolution'),
    'hole': ('a mask and an image with a hole', 'inpaint_without_text'),
    'semantic': ('a map of classes', 'semantic_to_image'),
    'layout': ('boxes with classes', 'layout_to_image'),
    'other': ('other data', 'from_conditioning, in Python'),
}
# Modules of ldm_jax/conditioning, but for sizes, which go with any of them -> kind of model.
BY_CONDITIONING = {
    frozenset(): 'unconditional',
    frozenset({'text'}): 'text',
    frozenset({'text', 'inpainting'}): 'inpaint',
    frozenset({'text', 'source'}): 'edit',
    frozenset({'text', 'depth'}): 'depth',
    frozenset({'text', 'low_resolution'}): 'upscale',
    frozenset({'text', 'image_embedding'}): 'variation',
    frozenset({'class_label'}): 'class',
    frozenset({'low_resolution'}): 'super_resolution',
    frozenset({'inpainting'}): 'hole',
    frozenset({'label_map'}): 'semantic',
    frozenset({'boxes'}): 'layout',
}
GUIDANCE_SCALE = 7.5  # of texts
OTHER_GUIDANCE_SCALE = 3.0
IMAGENET = 1000  # classes; a foreign model with one more has that one for none
MAX_NOISE_LEVEL = 350  # of the x4 upscaler in training


def kind(parts: Parts) -> str:
    """The kind of model, a key of KINDS."""
    return BY_CONDITIONING.get(frozenset(parts.conditioning_kinds) - {'sizes'}, 'other')


def own_scale(parts: Parts, declared: float | None = None) -> float | None:
    """The guidance scale that suits a model: what its settings declare, or its kind's.

    None where training left nothing out, so that there is nothing to guide away from.
    """
    if not any(kind.drop_rate > 0 for _, kind in parts.conditioning):
        return None
    return declared or (GUIDANCE_SCALE if 'text' in parts.kinds else OTHER_GUIDANCE_SCALE)


def check(parts: Parts, task: str, *wanted: str) -> None:
    """Raises ValueError, with the model's conditioning and the tasks for it, unless it is of the wanted kinds."""
    found = kind(parts)
    if found not in wanted:
        conditioning, fitting = KINDS[found]
        needs = ' or '.join(KINDS[name][0] for name in wanted)
        raise ValueError(
            f'{task} is for models conditioned on {needs}. This one is conditioned on {conditioning}: it is for '
            f'{fitting}.'
        )


def inferred(models: Mapping[str, nn.Module], has_tokenizer: bool) -> dict[str, dict[str, Any]]:
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
    if 'text_encoder' not in models:
        if widths.label is not None:
            return {'class_label': {}}
        beside = {
            channels: {'low_resolution': dict(factor=_downscale(models))},
            channels + 1: {'inpainting': dict(form='latent_diffusion')},
        }
        return _channels(widths.concat, beside)
    if not has_tokenizer:
        return {'boxes': {}}
    sdxl = 'text_encoder_2' in models
    text = dict(drop_rate=0.1, null='zeros' if sdxl else 'empty')
    found: dict[str, dict[str, Any]] = {'text': text}
    if 'image_encoder' in models:
        return found | {'image_embedding': dict(drop_rate=0.25)}
    if widths.vector is not None:
        projection = models['text_encoder_2' if sdxl else 'text_encoder'].projection_width
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
