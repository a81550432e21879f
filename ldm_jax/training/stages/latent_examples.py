"""Examples that latent diffusion trains on: whether they have what it wants, and a source encoded as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.conditioning.combine import Kind
from ldm_jax.conditioning.networks import TEXT_ENCODERS, Networks, encode_image, encode_text
from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.models import vae
from ldm_jax.progress import progress
from ldm_jax.types import Array, PyTree

LATENTS = ('moments', 'latents', 'image')  # a batch has the first of these that an example has


def check(row: Mapping[str, Any], kinds: Mapping[str, Kind], tokenized: bool, has_null: bool) -> None:
    """Raises ValueError when an example of a source lacks what the kinds of conditioning need.

    Args:
        kinds: by name.
        tokenized: there are text encoders, each with a tokenizer.
        has_null: the data bring the embedding of the empty text.
    """
    have = row.keys() | ({'tokens'} if 'text' in row and tokenized else set())
    for name, kind in kinds.items():
        if not any(have >= set(keys) for keys in kind.batch):
            wanted = ' or '.join(str(list(keys)) for keys in kind.batch)
            raise ValueError(
                f'Conditioning on {name!r} needs {wanted} of each example; the data have {sorted(row)}. '
                "A 'text' gives tokens where there are text encoders, each with a tokenizer."
            )
        # Of a text alone: `null` says what stands for a dropped one.
        if kind.drop_rate and getattr(kind, 'null', '') == 'empty' and not tokenized and not has_null:
            raise ValueError(
                'Dropped texts become the empty one, which needs text_encoder and tokenizer; name them as '
                f"pretrained.text_encoder, or set conditioning.{name}.null='zeros'."
            )
    if not have & set(LATENTS):
        raise ValueError(f'Each example needs one of {list(LATENTS)}; the data have {sorted(row)}.')


def clean(networks: Networks, batch: PyTree, posterior: Array | None) -> Array:
    """Scaled latents x0 [B, h, w, Z] of a batch; posterior: noise like them, the posterior's mean without it."""
    if 'moments' in batch:
        return networks.scaling_factor * vae.sample(batch['moments'], posterior)
    if 'latents' in batch:
        return networks.scaling_factor * batch['latents']
    return networks.latents(batch['image'], posterior)


def latent_shape(batch: PyTree, first_stage: nn.Module | None) -> tuple[int, ...]:
    """The shape of `clean` latents of a batch."""
    key = next(key for key in LATENTS if key in batch)
    b, h, w, channels = batch[key].shape
    if key == 'moments':
        return b, h, w, channels // 2
    if key == 'latents' or first_stage is None:
        return b, h, w, channels
    f = first_stage.downscale
    return b, h // f, w // f, first_stage.z_channels


def check_single(source: pipeline.Examples) -> None:
    """Raises ValueError when examples have several shapes or captions, of which memory would keep one."""
    elsewhere = (
        "encode them once with tools/encode_dataset.py and train on data=dict(name='latents', path=...)"
    )
    if len(pipeline.buckets(source)) > 1:
        raise ValueError(
            "encode='memory' is for examples of one shape, and these are in buckets: set stage.encode='step', or "
            f'{elsewhere}.'
        )
    several = [i for i in range(len(source)) if len(_captions(source, i)) > 1]
    if several:
        raise ValueError(
            f"encode='memory' keeps one caption of an example, and {len(several)} have several, the first "
            f"{pipeline.name(source, several[0])}: set stage.encode='step', or {elsewhere} with --views."
        )


def _captions(source: pipeline.Examples, i: int) -> Sequence[str]:
    try:
        return pipeline.captions(source, i) if hasattr(source, 'captions') else ()
    except Corrupt:  # counted when it is read
        return ()


def encoded(
    examples: pipeline.Examples,
    networks: Callable[[PyTree], Networks],
    params: Mapping[str, PyTree],
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """All examples, each key stacked; images as moments (or latents), tokens as context.

    networks: parameters -> networks with these bound.
    """

    @jax.jit
    def encode(params, batch):
        bound, found = networks(params), dict(batch)
        if 'image' in found:
            found |= encode_image(bound, found.pop('image'))
        if 'tokens' in found:
            encoded = encode_text(bound, found)
            found = {
                key: value for key, value in found.items() if key not in TEXT_ENCODERS.values()
            } | encoded
        return found

    params = jax.tree.map(jnp.asarray, dict(params))
    total = -(-len(examples) // batch_size)
    batches = progress(pipeline.in_order(examples, batch_size), total, 'encoding')
    parts = [jax.device_get(encode(params, batch)) for batch in batches]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
