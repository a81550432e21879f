"""The pair of CLIP towers, trained to say which text belongs to which image.

Ref: Radford et al. 2021, arXiv:2103.00020, section 2.3 and figure 3.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import clip_text, clip_vision
from ldm_jax.types import Array


class Model(nn.Module):
    """images, tokens -> (image_embeds [B, D], text_embeds [B, D], scale []).

    The parameters under 'text' and 'vision' are those of the towers alone: params['text'] is what a pipeline
    gives to clip_text.Model. The defaults are CLIP ViT-L/14's.
    """

    text: clip_text.Model = clip_text.Model(projection_width=768)
    vision: clip_vision.Model = clip_vision.Model(projection_width=768)

    def __post_init__(self):
        super().__post_init__()
        widths = self.text.projection_width, self.vision.projection_width
        if None in widths or widths[0] != widths[1]:
            raise ValueError(
                f'Both towers must project to one width; got projection_width {widths[0]} of text '
                f'and {widths[1]} of vision.'
            )

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size, which the positions fix, may only be the image_size."""
        return (*self.vision.inputs(batch, size), *self.text.inputs(batch))

    def setup(self):
        self.logit_scale = self.param(
            'logit_scale', nn.with_logical_partitioning(nn.initializers.constant(math.log(1 / 0.07)), ()), ()
        )

    def __call__(self, images: Array, tokens: Array) -> tuple[Array, Array, Array]:
        """Both embeddings, of norm 1, and the factor that makes logits of their products.

        Args:
            images: [B, S, S, 3], prepared by clip_vision.normalize.
            tokens: [B, L].
        """
        return self.encode_image(images), self.encode_text(tokens), jnp.exp(self.logit_scale)

    def encode_image(self, images: Array) -> Array:
        """Prepared images [B, S, S, 3] to vectors of norm 1 [B, D]."""
        return _unit(self.vision(images).projected)

    def encode_text(self, tokens: Array) -> Array:
        """Tokens [B, L] to vectors of norm 1 [B, D]."""
        return _unit(self.text(tokens).projected)


def contrastive_loss(image_embeds: Array, text_embeds: Array, scale: Array) -> Array:
    """Mean cross-entropy of finding each image's text and each text's image in the batch; log B is chance.

    Every other pair of the batch is a negative, so the batch should be the whole one: under pmap gather both
    embeddings first (jax.lax.all_gather with tiled=True), under jit with a sharded batch it is already so.

    Args:
        image_embeds, text_embeds: [B, D] of norm 1; rows of the same index belong together.
        scale: [], the model's third output. The authors keep the parameter at most log(100) while training.
    """
    logits = scale * image_embeds @ text_embeds.T  # [B images, B texts]
    text_of_image = jnp.diagonal(nn.log_softmax(logits, axis=1))
    image_of_text = jnp.diagonal(nn.log_softmax(logits, axis=0))
    return -(text_of_image.mean() + image_of_text.mean()) / 2


def _unit(x: Array) -> Array:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
