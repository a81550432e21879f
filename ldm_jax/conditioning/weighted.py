"""Texts in chunks with a weight for each token, encoded: what prompt languages ask for.

The vectors z of a chunk become z w, or with the vectors z_0 of the empty text z_0 + w (z - z_0). A1111's web UI then
brings the mean back to what it was, over all variants of a prompt at once, chunk by chunk and encoder by encoder.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/sd_emphasis.py; Comfy-Org/ComfyUI, comfy/sd1_clip.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from ldm_jax.conditioning.networks import TEXT_ENCODERS, Networks, learned_name, side_by_side, text_vectors
from ldm_jax.types import Array

EMPTY = 'empty_'  # before the names of the empty text's tokens


def encode(networks: Networks, *said: Mapping[str, Array]) -> list[tuple[Array, Array | None]]:
    """(context [B, V, N L, D], pooled [B, V, P]) of each of several sets of texts, whose encoders run once.

    Args:
        said: each with 'tokens' (and 'tokens_2') [B, V, N, L], V variants of N chunks; 'weights' [B, V, N, L]; 'counts'
            [B, V], how much each variant counts in the mean; 'restore' [B], whether the mean is restored; perhaps
            'words' (and 'words_2') [B, W, D]; perhaps 'empty_tokens' (and 'empty_tokens_2') [B, L] for weights that
            count from the empty text.

    pooled is of the first chunk, without weights; None without a projection.
    """
    names = [name for part, name in TEXT_ENCODERS.items() if part in networks.modules]
    rows: dict[str, list[Array]] = {name: [] for name in names}
    has_words = any(learned_name(names[0]) in each for each in said)
    from_empty = EMPTY + names[0] in said[0]
    for each in said:
        batch, variants, chunks, length = each[names[0]].shape
        for name in names:
            rows[name].append(each[name].reshape(-1, length))
            if has_words:
                rows.setdefault(learned_name(name), []).append(
                    _words(name, each, said, batch, variants * chunks)
                )
    if from_empty:
        for name in names:
            rows[name].append(said[0][EMPTY + name][:1])
            if has_words:
                rows[learned_name(name)].append(jnp.zeros_like(rows[learned_name(name)][0][:1]))
    if networks.strengths is not None:  # of each image's rows
        times = [each[names[0]].shape[1] * each[names[0]].shape[2] for each in said]
        strengths = [jnp.repeat(networks.strengths, count, 0) for count in times]
        strengths += [networks.strengths[:1]] * from_empty
        networks = dataclasses.replace(networks, strengths=jnp.concatenate(strengths))
    contexts, pooled = text_vectors(networks, {name: jnp.concatenate(each) for name, each in rows.items()})
    empty = [context[-1] if from_empty else jnp.zeros(()) for context in contexts]
    found, first = [], 0
    for each in said:
        shape = each[names[0]].shape
        last = first + shape[0] * shape[1] * shape[2]
        weighted = [
            weigh(
                context[first:last].reshape(*shape, -1),
                each['weights'],
                each['counts'],
                each['restore'],
                zero,
            )
            for context, zero in zip(contexts, empty, strict=True)
        ]
        context = side_by_side(weighted)
        context = context.reshape(*shape[:2], shape[2] * shape[3], -1)
        vector = None if pooled is None else pooled[first:last].reshape(*shape[:3], -1)[:, :, 0]
        found.append((context, vector))
        first = last
    return found


def weigh(z: Array, weights: Array, counts: Array, restore: Array, empty: Array) -> Array:
    """Vectors z [B, V, N, L, D] with a weight for each token.

    Args:
        weights: [B, V, N, L]; 1 changes nothing.
        counts: [B, V], how much each variant counts in the mean.
        restore: bool [B], whether the mean over variants, tokens and width of each chunk is brought back.
        empty: [L, D] where weights count from, or [] for 0.
    """
    w = weights[..., None].astype(z.dtype)
    out = jnp.where(w == 1, z, empty + w * (z - empty))

    def mean(a):
        shares = (counts / counts.sum(1, keepdims=True))[:, :, None]
        return jnp.sum(
            shares * a.mean((3, 4), dtype=jnp.promote_types(a.dtype, jnp.float32)), 1, keepdims=True
        )

    before, after = mean(z), mean(out)
    ratio = jnp.where(before == after, 1, before / after)[..., None, None]
    return jnp.where(restore[:, None, None, None, None], out * ratio.astype(z.dtype), out)


def _words(
    name: str, each: Mapping[str, Array], said: Sequence[Mapping[str, Array]], batch: int, times: int
) -> Array:
    """The learned words of each row; zeros for texts without any."""
    learned = learned_name(name)
    most = max(other[learned].shape[1] for other in said if learned in other)
    if learned not in each:
        width = next(other[learned].shape[2] for other in said if learned in other)
        return jnp.zeros((batch * times, most, width))
    words = jnp.pad(each[learned], ((0, 0), (0, most - each[learned].shape[1]), (0, 0)))
    return jnp.repeat(words, times, 0)
