"""What a model is told besides its noisy latents, and so which tasks it is for."""

from __future__ import annotations

from ldm_jax.inference.model import Parts

GUIDANCE_SCALE = 7.5  # of texts
CLASS_GUIDANCE_SCALE = 3.0
IMAGENET = 1000  # classes; a model that knows one more has that one for none

# Kind of model -> (what it is told, the tasks that fit).
KINDS = {
    'text': ('a text', 'text_to_image, image_to_image, inpaint, outpaint, hires, refine or invert'),
    'inpaint': ('a text, a mask and an image with a hole', 'inpaint or outpaint'),
    'edit': ('a text and an image', 'edit'),
    'depth': ('a text and a depth map', 'depth_to_image'),
    'upscale': ('a text, a small image and how noisy that is', 'upscale'),
    'variation': ("a text and an image's embedding", 'variations'),
    'class': ('a class', 'class_to_image'),
    'unconditional': ('nothing', 'unconditional'),
    'super_resolution': ('a small image', 'super_resolution'),
    'hole': ('a mask and an image with a hole', 'inpaint_without_text'),
    'semantic': ('a map of classes', 'semantic_to_image'),
    'layout': ('boxes with classes', 'layout_to_image'),
    'unknown': ('what no task here knows', 'none'),
}


def kind(parts: Parts) -> str:
    """The kind of KINDS that a model is of."""
    extra, channels = parts.extra_channels, parts.unet.out_channels
    if parts.rescaler is not None:
        return 'semantic'
    if parts.class_embedder is not None:
        return 'class'
    if parts.text_encoder is None:
        return {0: 'unconditional', channels: 'super_resolution', channels + 1: 'hole'}.get(extra, 'unknown')
    if not parts.has_tokenizer:
        return 'layout'
    if parts.image_encoder is not None:
        return 'variation'
    if parts.unet.num_classes is not None:
        return 'upscale'
    return {0: 'text', 1: 'depth', channels: 'edit', channels + 1: 'inpaint'}.get(extra, 'unknown')


def own_scale(parts: Parts, declared: float | None = None) -> float | None:
    """The guidance scale that suits a model: what its settings declare, or its kind's; None where nothing guides."""
    found = kind(parts)
    if found == 'class':
        return (declared or CLASS_GUIDANCE_SCALE) if has_null(parts) else None
    return (declared or GUIDANCE_SCALE) if parts.has_tokenizer else None


def has_null(parts: Parts) -> bool:
    """Whether the last class means none."""
    return parts.class_embedder.num_classes == IMAGENET + 1


def check(parts: Parts, task: str, *wanted: str) -> None:
    """Raises ValueError, with what the model is told and the tasks that fit, unless it is of the wanted kinds."""
    found = kind(parts)
    if found not in wanted:
        told, fitting = KINDS[found]
        needs = ' or '.join(KINDS[name][0] for name in wanted)
        raise ValueError(
            f'{task} is for models that are told {needs}. This one is told {told}: it is for {fitting}.'
        )
