"""What the text and image encoders share: the pre-norm transformer layer, its activations and the checks."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.build import unknown
from ldm_jax.models import layers
from ldm_jax.models.attention import Attention
from ldm_jax.types import Array


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x): what OpenAI trained CLIP with, off the exact GELU by up to 2e-2."""
    return x * nn.sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    """The exact GELU, by erf: OpenCLIP's H and bigG, and the LDM BERT."""
    return nn.gelu(x, approximate=False)


ACTIVATIONS = {'quick_gelu': quick_gelu, 'gelu': gelu}


class Layer(nn.Module):
    """Self-attention and a feed-forward of four times the width, each normed first and added to x [B, L, D].

    depth is the number of layers in the stack: the feed-forward's last projection starts smaller by its root,
    so that the sum over the layers does not grow with it (Radford et al. 2019, GPT-2, section 2.3).
    """

    num_heads: int
    head_width: int
    depth: int
    activation: str = 'gelu'
    qkv_bias: bool = True
    causal: bool = False
    backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        x = x + Attention(
            self.num_heads,
            self.head_width,
            width,
            qkv_bias=self.qkv_bias,
            causal=self.causal,
            qkv_init=nn.initializers.normal(width**-0.5),
            out_init=nn.initializers.normal((2 * self.depth * width) ** -0.5),
            backend=self.backend,
            dtype=self.dtype,
            name='attention',
        )(layers.layer_norm(dtype=self.dtype, name='norm1')(x))
        hidden = layers.dense(
            4 * width,
            axes=('embed', 'mlp'),
            kernel_init=nn.initializers.normal((2 * width) ** -0.5),
            dtype=self.dtype,
            name='ff_in',
        )(layers.layer_norm(dtype=self.dtype, name='norm2')(x))
        return x + layers.dense(
            width,
            axes=('mlp', 'embed'),
            kernel_init=nn.initializers.normal((2 * self.depth * width) ** -0.5),
            dtype=self.dtype,
            name='ff_out',
        )(ACTIVATIONS[self.activation](hidden))


def embedded(embed: Callable[[Array], Array], tokens: Array, words: Array | None, dtype: jnp.dtype) -> Array:
    """The vectors [B, L, D] of tokens [B, L]; tokens -1, -2, ... stand for learned words [B, W, D]: textual inversion.

    Ref: Gal et al. 2022, arXiv:2208.01618, section 3.
    """
    if words is None:
        return embed(tokens)
    places = jnp.clip(-1 - tokens, 0, words.shape[1] - 1)
    learned = jnp.take_along_axis(words.astype(dtype), places[..., None], axis=1)
    return jnp.where(tokens[..., None] < 0, learned, embed(jnp.maximum(tokens, 0)))


def check_fields(width: int, num_layers: int, num_heads: int, activation: str, output_layer: int) -> None:
    """Raises ValueError for the fields of a CLIP tower that cannot be built."""
    if activation not in ACTIVATIONS:
        raise unknown('activation', activation, sorted(ACTIVATIONS))
    if width % num_heads:
        raise ValueError(f'width {width} must be a multiple of num_heads {num_heads}.')
    if not -num_layers - 1 <= output_layer <= num_layers:
        raise ValueError(
            f'output_layer must be between {-num_layers - 1} and {num_layers} for {num_layers} layers '
            f'(0 is the embeddings, {num_layers} or -1 the last layer); got {output_layer}.'
        )


def check_tokens(tokens: Array, vocab_size: int, context_length: int, learned: int = 0) -> None:
    """Raises for tokens that are not integers [B, L <= context_length] below vocab_size, and no less than -learned.

    Values are only seen outside jit; inside it, an id beyond the vocabulary makes NaN.
    """
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f'tokens must be integers [B, L]; got {tokens.dtype}{list(tokens.shape)}.')
    if tokens.shape[1] > context_length:
        raise ValueError(
            f'This encoder has positions for {context_length} tokens; got {tokens.shape[1]}. '
            'Cut the text, or encode it in pieces.'
        )
    if not isinstance(tokens, jax.core.Tracer) and tokens.size:
        ids = np.asarray(tokens)  # not jnp: inside jit that would make constants abstract
        low, high = ids.min(), ids.max()
        if low < -learned or high >= vocab_size:
            raise ValueError(
                f'Token ids must be within 0 .. {vocab_size - 1}; got {low} .. {high}. '
                'Is the tokenizer the one of this encoder?'
            )
