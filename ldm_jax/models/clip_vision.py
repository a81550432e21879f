"""The CLIP vision transformer: images to one vector per patch and to one per image.

    patches -> class token + position -> norm -> transformer -> norm of the class token -> projection

Used by unCLIP, RDM, the safety checker and IP-Adapter (projected; the -plus versions read hidden with
output_layer=-2), and for measuring.
Ref: Radford et al. 2021, arXiv:2103.00020; Dosovitskiy et al. 2020, arXiv:2010.11929 (ViT).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.models import clip_layers, layers
from ldm_jax.types import Array

# Channel means and deviations in [0, 1] of CLIP's training images; OpenAI's `clip/clip.py`, kept by OpenCLIP.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@struct.dataclass
class VisionOutput:
    """What the image encoder says about images of P patches."""

    hidden: Array  # [B, 1 + P, width] class token, then patches row by row, of the chosen layer; not normed
    pooled: Array  # [B, width] the last layer's class token, after the post norm
    projected: Array | None  # [B, projection_width] pooled, projected to the space that texts share


class Model(nn.Module):
    """images [B, image_size, image_size, 3], normalized -> VisionOutput. The defaults are CLIP ViT-L/14's."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    activation: str = 'quick_gelu'  # or 'gelu', exact: OpenCLIP
    projection_width: int | None = 768
    output_layer: int = -1  # of hidden: 0 the embeddings, 1 the first layer, -1 the last, -2 the one before
    remat: bool = False  # recompute each layer in the backward pass: less memory, a third more time
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        clip_layers.check_fields(
            self.width, self.num_layers, self.num_heads, self.activation, self.output_layer
        )
        if self.image_size % self.patch_size:
            raise ValueError(
                f'image_size {self.image_size} must be a multiple of patch_size {self.patch_size}.'
            )

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size, which the position table fixes, may only be image_size."""
        size = self.image_size if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),)

    @nn.compact
    def __call__(self, images: Array) -> VisionOutput:
        """Encodes images that `normalize` has prepared.

        Raises ValueError for images of another size: the table of positions has one entry per patch.
        """
        expected = (self.image_size, self.image_size, 3)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f'Images must be [B, {", ".join(map(str, expected))}]; got {list(images.shape)}. '
                'Resize them with clip_vision.preprocess.'
            )
        init = nn.initializers.normal(self.width**-0.5)
        class_embedding: Any = self.param(
            'class_embedding', nn.with_logical_partitioning(init, ('embed',)), (self.width,)
        )
        positions: Any = self.param(
            'position_embedding',
            nn.with_logical_partitioning(init, ('position', 'embed')),
            (1 + self.num_patches, self.width),
        )
        patches = layers.conv(
            self.width,
            self.patch_size,
            stride=self.patch_size,
            padding=0,
            use_bias=False,
            dtype=self.dtype,
            name='patch_embedding',
        )(images)
        batch = images.shape[0]
        patches = patches.reshape(batch, self.num_patches, self.width)
        first = jnp.broadcast_to(class_embedding.astype(self.dtype), (batch, 1, self.width))
        x = jnp.concatenate([first, patches], axis=1) + positions.astype(self.dtype)
        x = layers.layer_norm(dtype=self.dtype, name='pre_norm')(x)
        outputs = [x]
        layer = nn.remat(clip_layers.Layer) if self.remat else clip_layers.Layer
        for i in range(self.num_layers):
            x = layer(
                self.num_heads,
                self.width // self.num_heads,
                self.num_layers,
                activation=self.activation,
                backend=self.attention_backend,
                dtype=self.dtype,
                name=f'layer_{i}',
            )(x)
            outputs.append(x)

        pooled = layers.layer_norm(dtype=self.dtype, name='post_norm')(x[:, 0])
        projected = None
        if self.projection_width is not None:
            projected = layers.dense(
                self.projection_width,
                axes=('embed', 'embed'),
                use_bias=False,
                kernel_init=init,
                dtype=self.dtype,
                name='projection',
            )(pooled)
        return VisionOutput(outputs[self.output_layer], pooled, projected)


def normalize(images: Array) -> Array:
    """Images [B, H, W, 3] in [-1, 1] to what the model takes: per channel (value in [0, 1] - MEAN) / STD."""
    return ((images + 1) / 2 - jnp.asarray(MEAN, images.dtype)) / jnp.asarray(STD, images.dtype)


def preprocess(images: Array, size: int = 224) -> Array:
    """Images [B, H, W, 3] in [-1, 1] to the model's input [B, size, size, 3], as its authors do.

    The shorter side becomes `size` (bicubic, antialiased) and the longer one is rounded down, its middle is kept,
    and `normalize` follows.
    """
    b, h, w, c = images.shape
    height, width = size * h // min(h, w), size * w // min(h, w)
    if (height, width) != (h, w):
        images = jax.image.resize(images, (b, height, width, c), 'cubic', antialias=True)
    top, left = (height - size) // 2, (width - size) // 2
    return normalize(images[:, top : top + size, left : left + size])
