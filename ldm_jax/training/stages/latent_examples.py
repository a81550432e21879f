"""Examples that latent diffusion trains on: whether they have what it wants, and a source encoded as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data import pipeline
from ldm_jax.models import vae
from ldm_jax.progress import progress
from ldm_jax.training.conditioning import NEEDS, TEXT_ENCODERS, Networks, encode_text, to_float
from ldm_jax.types import PyTree

LATENTS = ('moments', 'latents', 'image')  # a batch has the first of these that an example has


def check(
    row: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]], tokenized: bool, has_null: bool
) -> None:
    """Raises ValueError when an example of a source lacks what the kinds of conditioning need.

    Args:
        kinds: of conditioning.py, with their knobs.
        tokenized: there are text encoders, each with a tokenizer.
        has_null: the data bring the embedding of the empty text.
    """
    have = row.keys() | ({'tokens'} if 'text' in row and tokenized else set())
    for kind in kinds:
        if not any(have >= set(keys) for keys in NEEDS[kind]):
            wanted = ' or '.join(str(list(keys)) for keys in NEEDS[kind])
            raise ValueError(
                f'Conditioning on {kind!r} needs {wanted} of each example; the data have {sorted(row)}. '
                "A 'text' gives tokens where there are text encoders, each with a tokenizer."
            )
    if not have & set(LATENTS):
        raise ValueError(f'Each example needs one of {list(LATENTS)}; the data have {sorted(row)}.')
    spec = kinds.get('text')
    dropped = spec is not None and spec.get('drop_rate', 0.0) and spec.get('null', 'empty') == 'empty'
    if dropped and not tokenized and not has_null:
        raise ValueError(
            'Dropped texts become the empty one, which needs text_encoder and tokenizer; name them as '
            "pretrained.text_encoder, or set conditioning.text.null='zeros'."
        )


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
            image = to_float(found.pop('image'))
            first_stage = bound.modules.get('first_stage')
            # Of a KL first stage `encode` gives moments; there is nothing to sample of others.
            key = 'moments' if isinstance(first_stage, vae.Model) else 'latents'
            found[key] = image if first_stage is None else bound.apply('first_stage', image, method='encode')
        if 'tokens' in found:
            found['context'], pooled = encode_text(bound, found)
            found |= {} if pooled is None else {'pooled': pooled}
            found = {key: value for key, value in found.items() if key not in TEXT_ENCODERS.values()}
        return found

    params = jax.tree.map(jnp.asarray, dict(params))
    total = -(-len(examples) // batch_size)
    batches = progress(pipeline.in_order(examples, batch_size), total, 'encoding')
    parts = [jax.device_get(encode(params, batch)) for batch in batches]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
