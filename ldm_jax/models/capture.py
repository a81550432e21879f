"""Attention probabilities of a network, had on request: nothing is kept of them otherwise."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from ldm_jax.models.attention import PROBABILITIES
from ldm_jax.types import Array, PyTree


def attention_probabilities(
    model: nn.Module, params: PyTree, *inputs: Any, **options: Any
) -> tuple[Any, dict[str, Array]]:
    """(the network's output, probabilities [B, N, L, M] of N heads by the path of their attention).

    All attention of models/attention.py is in it: of U-Nets, text and image encoders, first stages, and of networks
    built from it. The output is that of an ordinary call, but attention takes the naive way, whose memory is all the
    scores: a 64 x 64 latent has 16.8 million a head in its outermost self-attention. Pure, so that it may be jitted.

    Args:
        inputs, options: of model.apply beside the variables.
    """
    out, kept = model.apply({'params': params}, *inputs, mutable=[PROBABILITIES], **options)
    leaves = jax.tree_util.tree_flatten_with_path(kept.get(PROBABILITIES, {}))[0]
    paths = [[key.key for key in path if hasattr(key, 'key')] for path, _ in leaves]
    return out, {'/'.join(path[:-1]): leaf for path, (_, leaf) in zip(paths, leaves, strict=True)}
