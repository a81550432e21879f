"""The U-Net as diffusers names it: UNet2DConditionModel, and UNet2DModel for plain self-attention.

Down blocks count levels from full resolution, up blocks from the middle.
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.compvis_unet import transformer
from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, dense, embed, norm
from ldm_jax.models import unet


def layout(
    model: unet.Model,
    linear_projection: bool = False,
    vector_key: str = 'add_embedding',
    old_attention: bool = False,
) -> Layout:
    """The layout of a U-Net's file.

    Args:
        model: the U-Net; its fields say which blocks there are.
        linear_projection: transformers project by linear layers (SD 2, SDXL: proj_in.weight has 2 axes),
            not by 1x1 convolutions (SD 1: 4 axes).
        vector_key: what the embedding of Cond.vector is called: 'add_embedding' (SDXL) or
            'class_embedding' (unCLIP).
        old_attention: plain self-attention has its old names query, key, value and proj_attn, as in files
            of early diffusers, which renames them when it loads them.
    """
    rules = [*dense('time_embedding.linear_1', 'time_in'), *dense('time_embedding.linear_2', 'time_out')]
    if model.guidance_width is not None:
        rules += dense('time_embedding.cond_proj', 'guidance', bias=False)
    if model.vector_width is not None:
        rules += dense(f'{vector_key}.linear_1', 'vector_in') + dense(f'{vector_key}.linear_2', 'vector_out')
    if model.num_classes is not None:
        rules += embed('class_embedding', 'label')

    def attention(torch: str, flax: str, depth: int) -> list[Rule]:
        if depth == 0:
            return []
        if model.context_width is None:
            return self_attention(torch, flax, old_attention)
        return transformer(torch, flax, depth, linear_projection)

    def resample(torch: str, flax: str) -> list[Rule]:
        return res_block(torch, flax) if model.resblock_updown else conv(f'{torch}.conv', f'{flax}/conv')

    rules += conv('conv_in', 'conv_in')
    before, last = model.channels, len(model.channel_mult) - 1
    for level, mult in enumerate(model.channel_mult):
        torch, flax, features = f'down_blocks.{level}', f'down_{level}', model.channels * mult
        for i in range(model.num_res_blocks):
            rules += res_block(f'{torch}.resnets.{i}', f'{flax}_res_{i}', has_skip=before != features)
            rules += attention(f'{torch}.attentions.{i}', f'{flax}_attn_{i}', model.down_depths(level)[i])
            before = features
        if level < last:
            rules += resample(f'{torch}.downsamplers.0', f'{flax}_sample')

    for i in range(model.mid_res_blocks):
        rules += res_block(f'mid_block.resnets.{i}', f'mid_res_{i}')
    rules += attention('mid_block.attentions.0', 'mid_attn', model.mid_depth)

    for level in range(last, -1, -1):
        torch, flax = f'up_blocks.{last - level}', f'up_{level}'
        for i, depth in enumerate(model.up_depths(level)):
            rules += res_block(f'{torch}.resnets.{i}', f'{flax}_res_{i}', has_skip=True)
            rules += attention(f'{torch}.attentions.{i}', f'{flax}_attn_{i}', depth)
        if level > 0:
            rules += resample(f'{torch}.upsamplers.0', f'{flax}_sample')
    return Layout((*rules, *norm('conv_norm_out', 'norm_out'), *conv('conv_out', 'conv_out')))


def res_block(torch: str, flax: str, has_skip: bool = False) -> list[Rule]:
    """A residual block; has_skip: it changes the number of channels."""
    rules = [
        *norm(f'{torch}.norm1', f'{flax}/norm1'),
        *conv(f'{torch}.conv1', f'{flax}/conv1'),
        *dense(f'{torch}.time_emb_proj', f'{flax}/time'),
        *norm(f'{torch}.norm2', f'{flax}/norm2'),
        *conv(f'{torch}.conv2', f'{flax}/conv2'),
    ]
    return rules + conv(f'{torch}.conv_shortcut', f'{flax}/skip') if has_skip else rules


def self_attention(torch: str, flax: str, old: bool) -> list[Rule]:
    """Plain self-attention, each projection a matrix."""
    names = ('query', 'key', 'value', 'proj_attn') if old else ('to_q', 'to_k', 'to_v', 'to_out.0')
    rules = norm(f'{torch}.group_norm', f'{flax}/norm')
    for name, part in zip(names, ('q', 'k', 'v', 'out'), strict=True):
        rules += dense(f'{torch}.{name}', f'{flax}/attention/{part}')
    return rules
