"""The transformer that latent diffusion trained with its text-to-image and layout models.

    tokens -> embedding + position -> pre-norm transformer -> final norm

Every token attends to every other, padding included. The heads have their own width, so that the attention is
narrower than the stream (8 x 64 = 512 in all three sizes).
Ref: Rombach et al. 2022, arXiv:2112.10752, section 3.3. Its words are the tokens of bert-base-uncased.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import clip_layers, layers
from ldm_jax.types import Array


class Model(nn.Module):
    """tokens [B, L] -> context [B, L, width]. The defaults are those of txt2img-1p4B."""

    vocab_size: int = 30522
    context_length: int = 77
    width: int = 1280
    num_layers: int = 32
    num_heads: int = 8
    head_width: int = 64
    remat: bool = False  # recompute each layer in the backward pass: less memory, a third more time
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size is the number of tokens (default context_length)."""
        length = self.context_length if size is None else size
        return (jax.ShapeDtypeStruct((batch, length), jnp.int32),)

    @nn.compact
    def __call__(self, tokens: Array, words: Array | None = None) -> Array:
        """Encodes integers [B, L], L at most context_length; tokens -1, -2, ... are the vectors words [B, W, width].

        Raises ValueError for tokens of another dtype or rank, too many, or (outside jit) beyond vocab_size.
        """
        learned = 0 if words is None else words.shape[1]
        clip_layers.check_tokens(tokens, self.vocab_size, self.context_length, learned)
        positions = self.param(
            'position_embedding',
            nn.with_logical_partitioning(nn.initializers.normal(0.02), ('position', 'embed')),
            (self.context_length, self.width),
        )
        embed = layers.embed(self.vocab_size, self.width, dtype=self.dtype, name='token_embedding')
        x = clip_layers.embedded(embed, tokens, words, self.dtype)
        x = x + positions[: tokens.shape[1]].astype(self.dtype)
        layer = nn.remat(clip_layers.Layer) if self.remat else clip_layers.Layer
        for i in range(self.num_layers):
            x = layer(
                self.num_heads,
                self.head_width,
                self.num_layers,
                activation='gelu',
                qkv_bias=False,
                backend=self.attention_backend,
                dtype=self.dtype,
                name=f'layer_{i}',
            )(x)
        return layers.layer_norm(dtype=self.dtype, name='final_norm')(x)
