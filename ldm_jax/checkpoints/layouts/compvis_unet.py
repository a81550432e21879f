"""The U-Net as the original code of latent diffusion, Stable Diffusion and SDXL names it.

Keys are those below 'model.diffusion_model.': time_embed, label_emb, input_blocks.N.M, middle_block.M,
output_blocks.N.M and out. N counts the features put on the stack of skip connections, and taken off it again.
M counts within: the residual block, then attention where there is any, then the change of resolution.
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, dense, embed, fused_qkv, norm
from ldm_jax.models import unet


def layout(model: unet.Model, linear_projection: bool = False) -> Layout:
    """The layout of a U-Net's file.

    Args:
        model: the U-Net; its fields say which blocks there are.
        linear_projection: transformers project by linear layers (SD 2, SDXL: proj_in.weight has 2 axes),
            not by 1x1 convolutions (SD 1, latent diffusion: 4 axes).
    """
    rules = [*dense('time_embed.0', 'time_in'), *dense('time_embed.2', 'time_out')]
    if model.guidance_width is not None:
        rules += dense('time_embed.cond_proj', 'guidance', bias=False)
    if model.vector_width is not None:
        rules += [*dense('label_emb.0.0', 'vector_in'), *dense('label_emb.0.2', 'vector_out')]
    if model.num_classes is not None:
        rules += embed('label_emb', 'label')

    def attention(torch: str, flax: str, features: int, depth: int) -> list[Rule]:
        if depth == 0:
            return []
        if model.context_width is None:
            return self_attention(torch, flax, model.heads(features))
        return transformer(torch, flax, depth, linear_projection)

    rules += conv('input_blocks.0.0', 'conv_in')
    n, before, last = 0, model.channels, len(model.channel_mult) - 1
    for level, mult in enumerate(model.channel_mult):
        features = model.channels * mult
        for i in range(model.num_res_blocks):
            n += 1
            rules += res_block(f'input_blocks.{n}.0', f'down_{level}_res_{i}', has_skip=before != features)
            rules += attention(
                f'input_blocks.{n}.1', f'down_{level}_attn_{i}', features, model.down_depths(level)[i]
            )
            before = features
        if level < last:
            n += 1
            torch, flax = f'input_blocks.{n}.0', f'down_{level}_sample'
            rules += res_block(torch, flax) if model.resblock_updown else conv(f'{torch}.op', f'{flax}/conv')

    for i in range(model.mid_res_blocks):
        rules += res_block(f'middle_block.{2 * i}', f'mid_res_{i}')
    rules += attention('middle_block.1', 'mid_attn', features, model.mid_depth)

    n = 0
    for level in range(last, -1, -1):
        features = model.channels * model.channel_mult[level]
        for i, depth in enumerate(model.up_depths(level)):
            torch = f'output_blocks.{n}'
            rules += res_block(f'{torch}.0', f'up_{level}_res_{i}', has_skip=True)
            rules += attention(f'{torch}.1', f'up_{level}_attn_{i}', features, depth)
            n += 1
        if level > 0:
            torch, flax = f'{torch}.{2 if depth else 1}', f'up_{level}_sample'
            rules += (
                res_block(torch, flax) if model.resblock_updown else conv(f'{torch}.conv', f'{flax}/conv')
            )
    return Layout((*rules, *norm('out.0', 'norm_out'), *conv('out.2', 'conv_out')))


def res_block(torch: str, flax: str, has_skip: bool = False) -> list[Rule]:
    """A residual block; has_skip: it changes the number of channels."""
    rules = [
        *norm(f'{torch}.in_layers.0', f'{flax}/norm1'),
        *conv(f'{torch}.in_layers.2', f'{flax}/conv1'),
        *dense(f'{torch}.emb_layers.1', f'{flax}/time'),
        *norm(f'{torch}.out_layers.0', f'{flax}/norm2'),
        *conv(f'{torch}.out_layers.3', f'{flax}/conv2'),
    ]
    return rules + conv(f'{torch}.skip_connection', f'{flax}/skip') if has_skip else rules


def self_attention(torch: str, flax: str, num_heads: int) -> list[Rule]:
    """Plain self-attention: q, k and v of the first head, then of the second, in one 1-D convolution."""
    paths = [f'{flax}/attention/{part}' for part in 'qkv']
    return [
        *norm(f'{torch}.norm', f'{flax}/norm'),
        *fused_qkv(
            f'{torch}.qkv.weight', paths, num_heads, bias=f'{torch}.qkv.bias', head_major=True, window=1
        ),
        *dense(f'{torch}.proj_out', f'{flax}/attention/out', window=1),
    ]


def transformer(torch: str, flax: str, depth: int, linear_projection: bool) -> list[Rule]:
    """A spatial transformer of `depth` blocks, named alike here and in diffusers."""
    window = 0 if linear_projection else 2
    rules = [
        *norm(f'{torch}.norm', f'{flax}/norm'),
        *dense(f'{torch}.proj_in', f'{flax}/proj_in', window=window),
        *dense(f'{torch}.proj_out', f'{flax}/proj_out', window=window),
    ]
    for i in range(depth):
        here, there = f'{torch}.transformer_blocks.{i}', f'{flax}/block_{i}'
        for attn in ('attn1', 'attn2'):
            for part in 'qkv':
                rules += dense(f'{here}.{attn}.to_{part}', f'{there}/{attn}/{part}', bias=False)
            rules += dense(f'{here}.{attn}.to_out.0', f'{there}/{attn}/out')
        rules += [rule for k in (1, 2, 3) for rule in norm(f'{here}.norm{k}', f'{there}/norm{k}')]
        rules += dense(f'{here}.ff.net.0.proj', f'{there}/ff_in')
        rules += dense(f'{here}.ff.net.2', f'{there}/ff_out')
    return rules
