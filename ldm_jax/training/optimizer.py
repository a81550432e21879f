"""Optimizers from plain settings."""

from __future__ import annotations

import jax
import optax

from ldm_jax.types import PyTree


def adamw(
    lr: float,
    num_steps: int,
    *,
    warmup_steps: int = 0,
    final_lr: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with a linear warm-up to lr, a cosine down to final_lr at num_steps, and gradients clipped by norm.

    Weight decay is for matrices and convolutions only, not for biases, norm scales and embeddings.
    Ref: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f'warmup_steps must be at least 0 and below the {num_steps} steps; got {warmup_steps}.'
        )
    rate = optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else lr, lr, warmup_steps, num_steps, final_lr
    )
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=_kernels),
    )


def _kernels(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
