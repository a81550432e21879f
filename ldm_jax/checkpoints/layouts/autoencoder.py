"""Files of the KL and VQ autoencoders (models vae and vq), in the original names and in those of diffusers.

The two differ in the names below, in the order of the decoder's levels, and in the attention's projections:
1x1 convolutions [C, C, 1, 1] in the original, matrices [C, C] in diffusers.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn

from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, dense, norm, tensor
from ldm_jax.models import vq


@dataclasses.dataclass(frozen=True)
class Names:
    """How one kind of file names the modules of an encoder or a decoder."""

    down: str  # of a level of the encoder
    up: str  # of a level of the decoder; `flipped` counts from the lowest resolution
    res: str  # of a residual block in its level
    attn: str  # of an attention in its level
    down_sample: str
    up_sample: str
    mid_res: tuple[str, str]
    mid_attn: str
    norm_out: str
    skip: str  # in a residual block
    attn_norm: str
    projections: tuple[str, str, str, str]  # of an attention: q, k, v, out
    window: int  # trailing axes of size 1 of the projections


COMPVIS = Names(
    down='down.{level}',
    up='up.{level}',
    res='block.{i}',
    attn='attn.{i}',
    down_sample='downsample.conv',
    up_sample='upsample.conv',
    mid_res=('mid.block_1', 'mid.block_2'),
    mid_attn='mid.attn_1',
    norm_out='norm_out',
    skip='nin_shortcut',
    attn_norm='norm',
    projections=('q', 'k', 'v', 'proj_out'),
    window=2,
)
DIFFUSERS = Names(
    down='down_blocks.{level}',
    up='up_blocks.{flipped}',
    res='resnets.{i}',
    attn='attentions.{i}',
    down_sample='downsamplers.0.conv',
    up_sample='upsamplers.0.conv',
    mid_res=('mid_block.resnets.0', 'mid_block.resnets.1'),
    mid_attn='mid_block.attentions.0',
    norm_out='conv_norm_out',
    skip='conv_shortcut',
    attn_norm='group_norm',
    projections=('to_q', 'to_k', 'to_v', 'to_out.0'),
    window=0,
)
NAMES = {
    'compvis': COMPVIS,
    'diffusers': DIFFUSERS,
    'diffusers_old': dataclasses.replace(DIFFUSERS, projections=('query', 'key', 'value', 'proj_attn')),
}
IGNORE = {'loss.*': 'the losses of its training: discriminator, perceptual network, log variance'}


def layout(model: nn.Module, names: str = 'compvis') -> Layout:
    """The layout of a first stage's file.

    Args:
        model: a vae.Model or vq.Model.
        names: 'compvis' for the original files, 'diffusers' for today's folders, 'diffusers_old' for early
            ones, whose attention has other names.

    Raises:
        ValueError: no such names.
    """
    if names not in NAMES:
        raise ValueError(f'No autoencoder names {names!r}; have {sorted(NAMES)}.')
    kind = NAMES[names]
    rules = [
        *_half(kind, model, 'encoder'),
        *conv('quant_conv', 'quant_conv'),
        *conv('post_quant_conv', 'post_quant_conv'),
        *_half(kind, model, 'decoder'),
    ]
    if isinstance(model, vq.Model):
        rules += tensor('quantize.embedding.weight', 'quantizer/embedding')
    return Layout(tuple(rules), IGNORE if kind is COMPVIS else {})


def _half(names: Names, model: nn.Module, half: str) -> list[Rule]:
    rules = [*conv(f'{half}.conv_in', f'{half}/conv_in'), *conv(f'{half}.conv_out', f'{half}/conv_out')]
    rules += norm(f'{half}.{names.norm_out}', f'{half}/norm_out')
    for i, res in enumerate(names.mid_res):
        rules += _res_block(names, f'{half}.{res}', f'{half}/mid_res_{i}', has_skip=False)
    if model.mid_attention:
        rules += _attention(names, f'{half}.{names.mid_attn}', f'{half}/mid_attn')

    mults, lowest = model.channel_mult, len(model.channel_mult) - 1
    for level, mult in enumerate(mults):
        if half == 'encoder':
            name = names.down.format(level=level)
            torch, flax = f'{half}.{name}', f'{half}/down_{level}'
            count, previous = model.num_res_blocks, (1, *mults)[level]
            sample, has_sample = names.down_sample, level < lowest
        else:
            name = names.up.format(level=level, flipped=lowest - level)
            torch, flax = f'{half}.{name}', f'{half}/up_{level}'
            count, previous = model.num_res_blocks + 1, (*mults, mults[-1])[level + 1]
            sample, has_sample = names.up_sample, level > 0
        for i in range(count):
            has_skip = i == 0 and mult != previous
            rules += _res_block(names, f'{torch}.{names.res.format(i=i)}', f'{flax}_res_{i}', has_skip)
            if level in model.attention_levels:
                rules += _attention(names, f'{torch}.{names.attn.format(i=i)}', f'{flax}_attn_{i}')
        if has_sample:
            rules += conv(f'{torch}.{sample}', f'{flax}_sample/conv')
    return rules


def _res_block(names: Names, torch: str, flax: str, has_skip: bool) -> list[Rule]:
    rules = [
        *norm(f'{torch}.norm1', f'{flax}/norm1'),
        *conv(f'{torch}.conv1', f'{flax}/conv1'),
        *norm(f'{torch}.norm2', f'{flax}/norm2'),
        *conv(f'{torch}.conv2', f'{flax}/conv2'),
    ]
    return rules + (conv(f'{torch}.{names.skip}', f'{flax}/skip') if has_skip else [])


def _attention(names: Names, torch: str, flax: str) -> list[Rule]:
    rules = norm(f'{torch}.{names.attn_norm}', f'{flax}/norm')
    for projection, ours in zip(names.projections, ('q', 'k', 'v', 'out'), strict=True):
        rules += dense(f'{torch}.{projection}', f'{flax}/attention/{ours}', window=names.window)
    return rules
