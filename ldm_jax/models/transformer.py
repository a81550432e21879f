"""The U-Net's transformer: pixels as tokens, attending to each other and to a context."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.attention import Attention
from ldm_jax.types import Array


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a gated feed-forward, each normed first and added to x [B, L, D].

    With cross_attention_only the first attention reads the context too (the x4 upscaler).
    perturbed [B]: whose self-attention is the identity, as in Attention. mask [B, M]: the tokens of the context that
    are seen.
    """

    num_heads: int
    head_width: int
    cross_attention_only: bool = False
    backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, context: Array, perturbed: Array | None = None, mask: Array | None = None
    ) -> Array:
        features = x.shape[-1]

        def attention(name):
            return Attention(
                self.num_heads,
                self.head_width,
                features,
                backend=self.backend,
                dtype=self.dtype,
                name=name,
            )

        def norm(name):
            return layers.layer_norm(dtype=self.dtype, name=name)

        if self.cross_attention_only:
            x = x + attention('attn1')(norm('norm1')(x), context, mask=mask)
        else:
            x = x + attention('attn1')(norm('norm1')(x), perturbed=perturbed)
        x = x + attention('attn2')(norm('norm2')(x), context, mask=mask)
        hidden = layers.dense(8 * features, axes=('embed', 'mlp'), dtype=self.dtype, name='ff_in')(
            norm('norm3')(x)
        )
        value, gate = jnp.split(hidden, 2, axis=-1)
        hidden = value * nn.gelu(gate, approximate=False)  # GEGLU; the tanh form is off by 5e-4
        return x + layers.dense(features, axes=('mlp', 'embed'), dtype=self.dtype, name='ff_out')(hidden)


class SpatialTransformer(nn.Module):
    """GroupNorm, projection, transformer blocks over all pixels, projection, added to x [B, H, W, C].

    The projections are one matrix each whether a checkpoint stores them as 1x1 convolutions (SD 1)
    or as linear layers (SD 2, SDXL).
    """

    num_heads: int
    head_width: int
    depth: int
    num_groups: int = 32
    cross_attention_only: bool = False
    backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, context: Array, perturbed: Array | None = None, mask: Array | None = None
    ) -> Array:
        b, h, w, c = x.shape
        tokens = layers.group_norm(epsilon=1e-6, num_groups=self.num_groups, dtype=self.dtype, name='norm')(
            x
        ).reshape(b, h * w, c)
        tokens = layers.dense(
            self.num_heads * self.head_width, axes=('embed', 'embed'), dtype=self.dtype, name='proj_in'
        )(tokens)
        for i in range(self.depth):
            tokens = TransformerBlock(
                self.num_heads,
                self.head_width,
                self.cross_attention_only,
                self.backend,
                self.dtype,
                name=f'block_{i}',
            )(tokens, context, perturbed, mask)
        out = layers.dense(
            c, axes=('embed', 'embed'), kernel_init=layers.ZEROS, dtype=self.dtype, name='proj_out'
        )(tokens)
        return x + out.reshape(b, h, w, c)
