"""The class embedder as latent diffusion names it, below 'cond_stage_model.'."""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, embed
from ldm_jax.models import class_embedder


def layout(model: class_embedder.Model) -> Layout:
    """The layout of its one table."""
    return Layout(tuple(embed('embedding', 'embedding')))
