"""Files of the tiny autoencoder (model taesd), which number their layers, in the original and in diffusers.

The original keeps encoder and decoder in files of their own, whose keys are the bare numbers of layers;
put 'encoder.' before those of the one and 'decoder.' before those of the other.
"""

from __future__ import annotations

import itertools

from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, norm
from ldm_jax.models import taesd


def layout(model: taesd.Model, names: str = 'taesd') -> Layout:
    """The layout of a tiny autoencoder's file.

    Args:
        model: a taesd.Model.
        names: 'taesd' for the original files, 'diffusers' for AutoencoderTiny folders.

    Raises:
        ValueError: no such names, or those of diffusers for a model with mid_norm, which it does not have.
    """
    if names not in ('taesd', 'diffusers'):
        raise ValueError(f"No tiny autoencoder names {names!r}; have ['diffusers', 'taesd'].")
    if names == 'diffusers' and model.mid_norm:
        raise ValueError("diffusers' AutoencoderTiny has no mid_norm; use names 'taesd' (--to compvis).")
    # diffusers wraps the layers once more, and the bounding of the latents is not among the decoder's.
    stem, first = ('.layers', 0) if names == 'diffusers' else ('', 1)
    lowest = len(model.num_blocks) - 1
    has_norm = [model.mid_norm and level == lowest for level in range(lowest + 1)]

    inward = (f'encoder{stem}.{i}' for i in itertools.count())
    rules = conv(next(inward), 'encoder/conv_in')
    for level, count in enumerate(model.num_blocks):
        for i in range(count):
            rules += _block(next(inward), f'encoder/down_{level}_block_{i}', has_norm[level])
        if level < lowest:
            rules += conv(next(inward), f'encoder/down_{level}_sample', bias=False)
    rules += conv(next(inward), 'encoder/conv_out')

    outward = (f'decoder{stem}.{i}' for i in itertools.count(first))
    rules += conv(next(outward), 'decoder/conv_in')
    next(outward)  # ReLU
    for level, count in reversed(list(enumerate(model.num_blocks))):
        for i in range(count):
            rules += _block(next(outward), f'decoder/up_{level}_block_{i}', has_norm[level])
        if level > 0:
            next(outward)  # upsampling
            rules += conv(next(outward), f'decoder/up_{level}_sample', bias=False)
    rules += conv(next(outward), 'decoder/conv_out')
    return Layout(tuple(rules))


def _block(torch: str, flax: str, has_norm: bool) -> list[Rule]:
    rules = []
    for i, name in enumerate(('conv1', 'conv2', 'conv3')):  # with a ReLU after the first two
        rules += conv(f'{torch}.conv.{2 * i}', f'{flax}/{name}')
    if has_norm:
        rules += conv(f'{torch}.pool.0', f'{flax}/norm_in', bias=False)
        rules += norm(f'{torch}.pool.1', f'{flax}/norm')
        rules += conv(f'{torch}.pool.3', f'{flax}/norm_out', bias=False)
    return rules
