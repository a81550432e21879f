"""The spatial rescaler as latent diffusion names it, below 'cond_stage_model.'."""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, conv
from ldm_jax.models import spatial_rescaler


def layout(model: spatial_rescaler.Model) -> Layout:
    """The layout of its one convolution."""
    return Layout(tuple(conv('channel_mapper', 'channel_mapper', bias=model.use_bias)))
