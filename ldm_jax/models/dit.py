"""The diffusion transformer: patches of latents attend to each other, modulated by time and class. SiT is the same.

    x -> patches + positions -> blocks -> modulated norm -> pixels of each patch
    t, label -> one vector, of which each block makes shift, scale and gate of its attention and its MLP

Ref: Peebles & Xie 2022, arXiv:2212.09748 (adaLN-Zero); Ma et al. 2024, arXiv:2401.08740 (SiT).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ldm_jax import denoising
from ldm_jax.models import layers
from ldm_jax.models.attention import Attention
from ldm_jax.types import Array, Cond, CondWidths

XAVIER = nn.initializers.xavier_uniform()
# Xavier's bound of queries, keys and values taken as one matrix [D, 3 D]: sqrt(6 / 4 D).
XAVIER_QKV = nn.initializers.variance_scaling(0.5, 'fan_avg', 'uniform')
EPSILON = 1e-6
FREQUENCIES = 256  # sinusoids of the time


class Model(nn.Module):
    """x [B, h, w, out_channels], t [B], Cond(label [B]) -> [B, h, w, out_channels].

    The table of positions is computed for the latents' size, and is no parameter.
    """

    out_channels: int = 4
    patch: int = 2
    width: int = 1152
    depth: int = 28
    num_heads: int = 16
    num_classes: int | None = 1001  # the last one stands for no class; None: unconditional
    learned_variance: bool = False  # as many channels again, for the variance; see __call__
    remat: bool = False  # recompute each block in the backward pass: less memory, a third more time
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads or self.width % 4:
            raise ValueError(
                f'A width of {self.width} must be a multiple of num_heads={self.num_heads}, and of 4 for positions.'
            )

    @property
    def conditioned_on(self) -> CondWidths:
        return CondWidths(label=self.num_classes)

    @property
    def downscale(self) -> int:
        return self.patch

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size is the latents' side (default 64)."""
        return denoising.inputs(self, batch, size)

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = Cond(), *, variance: bool = False) -> Array:  # noqa: B008 (Cond is frozen)
        """One evaluation.

        Args:
            x: noisy latents [B, h, w, C].
            t: schedule times [B], or [] for the whole batch.
            cond: with a label [B] where num_classes is given, and nothing else but `perturbed`.
            variance: whether the learned variance comes behind the prediction, [B, h, w, 2 C]: v in [-1, 1] between
                the logarithms of the posterior's variance and of beta (Nichol & Dhariwal 2021, arXiv:2102.09672).

        Raises:
            ValueError: a part of cond is missing, not wanted or of the wrong shape, the channels differ from
                out_channels, a side is no multiple of `patch`, or there is no learned variance.
        """
        self._check(x, cond, variance)
        b, h, w, _ = x.shape
        rows, columns, p = h // self.patch, w // self.patch, self.patch
        vector = nn.silu(self._vector(jnp.broadcast_to(t, (b,)), cond))
        patches = layers.conv(
            self.width,
            p,
            stride=p,
            padding=0,
            kernel_init=_as_matrix(XAVIER),
            dtype=self.dtype,
            name='patch_in',
        )(x.astype(self.dtype))
        tokens = patches.reshape(b, rows * columns, self.width)
        tokens = tokens + positions(rows, columns, self.width).astype(self.dtype)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            tokens = block(self.width, self.num_heads, self.attention_backend, self.dtype, name=f'block_{i}')(
                tokens, vector, cond.perturbed
            )
        shift, scale = modulation(vector, 2, self.width, self.dtype, 'out_modulation')
        tokens = modulated(tokens, shift, scale)
        channels = self.out_channels * (2 if self.learned_variance else 1)
        out = layers.dense(
            p * p * channels,
            axes=('embed', 'conv_out'),
            kernel_init=layers.ZEROS,
            dtype=self.dtype,
            name='out',
        )(tokens)
        out = out.reshape(b, rows, columns, p, p, channels).transpose(0, 1, 3, 2, 4, 5)
        out = out.reshape(b, h, w, channels).astype(x.dtype)
        return out if variance else out[..., : self.out_channels]

    def _vector(self, t: Array, cond: Cond) -> Array:
        """Time and class as one vector [B, width]."""

        def dense(name):
            return layers.dense(
                self.width,
                axes=('embed', 'time'),
                kernel_init=nn.initializers.normal(0.02),
                dtype=self.dtype,
                name=name,
            )

        hidden = dense('time_in')(layers.timestep_embedding(t, FREQUENCIES, self.dtype))
        vector = dense('time_out')(nn.silu(hidden))
        if self.num_classes is None:
            return vector
        table = layers.embed(
            self.num_classes, self.width, axes=('vocab', 'time'), dtype=self.dtype, name='label'
        )
        return vector + table(cond.label)

    def _check(self, x: Array, cond: Cond, variance: bool) -> None:
        if (
            x.ndim != 4
            or x.shape[-1] != self.out_channels
            or x.shape[1] % self.patch
            or x.shape[2] % self.patch
        ):
            raise ValueError(
                f'This transformer takes latents [B, h, w, {self.out_channels}] whose sides are multiples of '
                f'{self.patch}; got {list(x.shape)}.'
            )
        if variance and not self.learned_variance:
            raise ValueError('This transformer predicts no variance: its learned_variance is False.')
        for part in ('context', 'concat', 'vector'):
            if getattr(cond, part) is not None:
                raise ValueError(
                    f'This transformer takes no Cond.{part}; it is conditioned on a label alone.'
                )
        if (cond.label is None) != (self.num_classes is None):
            wanted = (
                'needs Cond.label [B]' if self.num_classes else 'takes no Cond.label: num_classes is None'
            )
            raise ValueError(f'This transformer {wanted}.')


class Block(nn.Module):
    """Attention and an MLP over tokens [B, L, D], each modulated by vector [B, D] and added: adaLN-Zero."""

    width: int
    num_heads: int
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, vector: Array, perturbed: Array | None = None) -> Array:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation(
            vector, 6, self.width, self.dtype, 'modulation'
        )
        attention = Attention(
            self.num_heads,
            self.width // self.num_heads,
            self.width,
            qkv_bias=True,
            qkv_init=XAVIER_QKV,
            out_init=XAVIER,
            backend=self.attention_backend,
            dtype=self.dtype,
            name='attention',
        )
        x = x + gate * attention(modulated(x, shift, scale), perturbed=perturbed)

        def dense(features, name, axes):
            return layers.dense(features, axes=axes, kernel_init=XAVIER, dtype=self.dtype, name=name)

        hidden = dense(4 * self.width, 'mlp_in', ('embed', 'mlp'))(modulated(x, mlp_shift, mlp_scale))
        return x + mlp_gate * dense(self.width, 'mlp_out', ('mlp', 'embed'))(
            nn.gelu(hidden, approximate=True)
        )


def modulation(vector: Array, count: int, width: int, dtype: jnp.dtype, name: str) -> list[Array]:
    """`count` vectors [B, 1, width] by one linear layer of vector [B, D], which starts at 0."""
    parts = layers.dense(
        count * width, axes=('time', 'mlp'), kernel_init=layers.ZEROS, dtype=dtype, name=name
    )(vector)
    return jnp.split(parts[:, None], count, axis=-1)


def modulated(x: Array, shift: Array, scale: Array) -> Array:
    """LayerNorm of x [B, L, D] without weights of its own, scaled by 1 + scale and shifted."""
    norm = nn.LayerNorm(
        epsilon=EPSILON, use_scale=False, use_bias=False, use_fast_variance=False, dtype=x.dtype
    )
    return norm(x) * (1 + scale) + shift


def positions(rows: int, columns: int, width: int) -> Array:
    """Sinusoids of each patch's column, then of its row: [rows x columns, width] in float64 where it is on.

    Each half holds the sines of all frequencies, then the cosines; frequencies fall from 1 to 1 / 10000.
    """
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))

    def along(count):
        angles = np.arange(count)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)

    shape = (rows, columns, width // 2)
    table = [np.broadcast_to(along(columns), shape), np.broadcast_to(along(rows)[:, None], shape)]
    return jnp.asarray(np.concatenate(table, axis=-1).reshape(rows * columns, width))


def _as_matrix(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initializer for a convolution's kernel [p, p, C, D], drawn as the matrix [p p C, D] that it is here."""

    def draw(key, shape, dtype=jnp.float32):
        return init(key, (int(np.prod(shape[:-1])), shape[-1]), dtype).reshape(shape)

    return draw
