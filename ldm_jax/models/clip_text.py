"""The CLIP text transformer: tokens to the context that a U-Net attends to, and to one vector per text.

    tokens -> embedding + position -> causal pre-norm transformer -> final norm -> projection at the end token

Which output a family of checkpoints is conditioned on:

    SD 1 (CLIP ViT-L/14)          output_layer=-1, final_norm=True; with clip skip 2 output_layer=-2
    SD 2 (OpenCLIP ViT-H/14)      output_layer=-1, final_norm=True, num_layers=23: the 24th is never used
    SDXL, first (CLIP ViT-L/14)   output_layer=-2, final_norm=False
    SDXL, second (OpenCLIP bigG)  output_layer=-2, final_norm=False, and projected as the vector

Ref: Radford et al. 2021, arXiv:2103.00020; Cherti et al. 2022, arXiv:2212.07143 (OpenCLIP).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.models import clip_layers, layers
from ldm_jax.types import Array


@struct.dataclass
class TextOutput:
    """What a text encoder says about texts."""

    context: Array  # [B, L, width] one vector per token, of the layer that the model's fields choose
    pooled: Array  # [B, width] the last layer at the first end token, after the final norm
    projected: Array | None  # [B, P] pooled, in the space that images share; None without a projection


class Model(nn.Module):
    """tokens [B, L] -> TextOutput. The defaults are CLIP ViT-L/14's, as in SD 1.

    The parameters do not depend on output_layer and final_norm; under jit the layers that no used output
    needs are not computed.
    """

    vocab_size: int = 49408
    context_length: int = 77
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    activation: str = 'quick_gelu'  # or 'gelu', exact: OpenCLIP
    projection_width: int | None = None
    output_layer: int = -1  # of the context: 0 the embeddings, 1 the first, -1 the last, -2 the one before
    final_norm: bool = True  # whether the context goes through the final norm; pooled always does
    end_id: int = 49407
    remat: bool = False  # recompute each layer in the backward pass: less memory, a third more time
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        clip_layers.check_fields(
            self.width, self.num_layers, self.num_heads, self.activation, self.output_layer
        )

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size is the number of tokens (default context_length)."""
        length = self.context_length if size is None else size
        return (jax.ShapeDtypeStruct((batch, length), jnp.int32),)

    @nn.compact
    def __call__(self, tokens: Array, words: Array | None = None) -> TextOutput:
        """Encodes texts.

        Args:
            tokens: integers [B, L], L at most context_length, each row with an end token; what follows the
                first one is padding, which pooled ignores and context keeps.
            words: [B, W, width] vectors that stand at tokens -1, -2, ... of their row: textual inversion.

        Raises:
            ValueError: tokens of another dtype or rank, too many, or (outside jit) beyond the vocabulary.
        """
        learned = 0 if words is None else words.shape[1]
        clip_layers.check_tokens(tokens, self.vocab_size, self.context_length, learned)
        positions = self.param(
            'position_embedding',
            nn.with_logical_partitioning(nn.initializers.normal(0.01), ('position', 'embed')),
            (self.context_length, self.width),
        )
        embed = layers.embed(self.vocab_size, self.width, dtype=self.dtype, name='token_embedding')
        x = clip_layers.embedded(embed, tokens, words, self.dtype)
        x = x + positions[: tokens.shape[1]].astype(self.dtype)
        outputs = [x]
        layer = nn.remat(clip_layers.Layer) if self.remat else clip_layers.Layer
        for i in range(self.num_layers):
            x = layer(
                self.num_heads,
                self.width // self.num_heads,
                self.num_layers,
                activation=self.activation,
                causal=True,
                backend=self.attention_backend,
                dtype=self.dtype,
                name=f'layer_{i}',
            )(x)
            outputs.append(x)

        norm = layers.layer_norm(dtype=self.dtype, name='final_norm')
        context = outputs[self.output_layer]
        end = jnp.argmax(tokens == self.end_id, axis=-1)  # the first one: CLIP pads with the end token
        pooled = norm(jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])
        projected = None
        if self.projection_width is not None:
            projected = layers.dense(
                self.projection_width,
                axes=('embed', 'embed'),
                use_bias=False,
                kernel_init=nn.initializers.normal(self.width**-0.5),
                dtype=self.dtype,
                name='projection',
            )(pooled)
        return TextOutput(norm(context) if self.final_norm else context, pooled, projected)
