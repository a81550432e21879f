"""What a model is conditioned on, and so which tasks it is for.

The conditioning is in the model's settings, or inferred from its networks (conditioning/infer.py).
"""

from __future__ import annotations

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
LEARNED_GUIDANCE_SCALE = 8.5  # of networks that take the scale (Luo et al. 2023, arXiv:2310.04378)


def kind(parts: Parts) -> str:
    """The kind of model, a key of KINDS."""
    return BY_CONDITIONING.get(frozenset(parts.conditioning_kinds) - {'sizes'}, 'other')


def own_scale(parts: Parts, declared: float | None = None) -> float | None:
    """The guidance scale that suits a model: what its settings declare, or its kind's.

    None where training left nothing out, so that there is nothing to guide away from, and for a declared 1.
    """
    if parts.embeds_guidance:
        return declared or LEARNED_GUIDANCE_SCALE
    if declared == 1:
        return None
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
