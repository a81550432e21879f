"""The modules around dot_product.py: projections, heads, and attention over the pixels of an image."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.dot_product import dot_product, probabilities
from ldm_jax.types import Array

PROBABILITIES = 'attention_probabilities'  # the collection that models/capture.py asks for


class Attention(nn.Module):
    """Multi-head attention of x [B, L, D] over context [B, M, E], or over x itself -> [B, L, features].

    Heads are contiguous: head n reads columns n * head_width to (n + 1) * head_width of q, k and v.
    Examples that are `perturbed` [B] attend to themselves alone: their attention map is the identity, each token
    gets its own value (Ahn et al. 2024, arXiv:2403.17377, eq. 12). That is for self-attention only.
    mask: bool [B, M] of the context's tokens that are seen; all by default.
    """

    num_heads: int
    head_width: int
    features: int
    qkv_bias: bool = False
    causal: bool = False
    qkv_init: nn.initializers.Initializer = layers.TORCH_INIT
    # With layers.ZEROS a residual branch starts as the identity.
    out_init: nn.initializers.Initializer = layers.TORCH_INIT
    backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Array,
        context: Array | None = None,
        perturbed: Array | None = None,
        mask: Array | None = None,
    ) -> Array:
        context = x if context is None else context
        width = self.num_heads * self.head_width

        def project(inputs, name):
            heads = layers.dense(
                width,
                axes=('embed', 'heads'),
                use_bias=self.qkv_bias,
                kernel_init=self.qkv_init,
                dtype=self.dtype,
                name=name,
            )(inputs)
            return heads.reshape(*heads.shape[:-1], self.num_heads, self.head_width)

        q, k, v = project(x, 'q'), project(context, 'k'), project(context, 'v')
        if self.is_mutable_collection(PROBABILITIES) and not self.is_initializing():
            weights = probabilities(q, k, causal=self.causal, mask=mask)
            if perturbed is not None:
                weights = jnp.where(perturbed[:, None, None, None], jnp.eye(weights.shape[-1]), weights)
            self.sow(PROBABILITIES, 'probabilities', weights)
            out = jnp.einsum('bnlm,bmnk->blnk', weights.astype(v.dtype), v)
        else:
            out = dot_product(q, k, v, causal=self.causal, mask=mask, backend=self.backend)
            if perturbed is not None:
                out = jnp.where(perturbed[:, None, None, None], v, out)
        out = out.reshape(*out.shape[:-2], width)
        return layers.dense(
            self.features, axes=('heads', 'embed'), kernel_init=self.out_init, dtype=self.dtype, name='out'
        )(out)


class SpatialSelfAttention(nn.Module):
    """GroupNorm, self-attention over all pixels, added to x [B, H, W, C].

    With one head of full width it is the autoencoders' block (epsilon 1e-6), with several the
    U-Net's block of unconditional latent diffusion (epsilon 1e-5).
    """

    num_heads: int
    epsilon: float
    num_groups: int = 32
    zero_init: bool = False
    backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, perturbed: Array | None = None) -> Array:
        b, h, w, c = x.shape
        normed = layers.group_norm(
            epsilon=self.epsilon, num_groups=self.num_groups, dtype=self.dtype, name='norm'
        )(x)
        out = Attention(
            self.num_heads,
            c // self.num_heads,
            c,
            qkv_bias=True,
            out_init=layers.ZEROS if self.zero_init else layers.TORCH_INIT,
            backend=self.backend,
            dtype=self.dtype,
            name='attention',
        )(normed.reshape(b, h * w, c), perturbed=perturbed)
        return x + out.reshape(b, h, w, c)
