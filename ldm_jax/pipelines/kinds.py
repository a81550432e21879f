"""What a model is told besides its noisy latents, and so which task it is for."""

from __future__ import annotations

from ldm_jax.pipelines.parts import Parts

# Task -> what its models are told besides a text.
TAKES = {
    'text_to_image': 'nothing else',
    'inpaint': 'a mask and the latents of a picture with a hole',
    'edit': 'the latents of a picture',
    'depth_to_image': 'a depth map',
    'upscale': 'a small picture',
    'image_variation': 'an image embedding',
}


def kind(parts: Parts) -> str | None:
    """The task of TAKES that a model was trained for; None for one that reads no texts, or takes unknown channels."""
    if parts.text_encoder is None:
        return None
    if parts.image_encoder is not None:
        return 'image_variation'
    channels = parts.unet.out_channels
    extra = parts.extra_channels
    known = {0: 'text_to_image', 1: 'depth_to_image', 3: 'upscale', channels: 'edit', channels + 1: 'inpaint'}
    return known.get(extra)


def check(parts: Parts, task: str, *wanted: str) -> None:
    """Raises ValueError, with what the model takes and the task that fits, unless it is of the wanted kinds."""
    found = kind(parts)
    if found in wanted:
        return
    needs = ' or '.join(TAKES[name] for name in wanted)
    if found is not None:
        takes = f'a text and {TAKES[found]}: its task is {found}'
    elif parts.text_encoder is None:
        takes = 'no text'
    else:
        takes = f'{parts.extra_channels} channels beside its latents, which no task here knows'
    raise ValueError(f'{task} is for models that are told a text and {needs}. This one takes {takes}.')
