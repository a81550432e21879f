"""The diffusion transformer as its authors name it (DiT and SiT), and as diffusers does.

The original file holds the table of positions, which our model computes. diffusers repeats the embedders of time and
class in every block; the copies must be equal, since there is one of each here.
"""

from __future__ import annotations

import numpy as np

from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, dense, fused_qkv, tensor
from ldm_jax.models import dit

POSITIONS = 'the table of positions, which is computed'


def original(model: dit.Model) -> Layout:
    """The layout of a state dict of facebookresearch/DiT or willisma/SiT."""
    rules = [
        *conv('x_embedder.proj', 'patch_in'),
        *dense('t_embedder.mlp.0', 'time_in'),
        *dense('t_embedder.mlp.2', 'time_out'),
        *dense('final_layer.adaLN_modulation.1', 'out_modulation'),
        *dense('final_layer.linear', 'out'),
    ]
    if model.num_classes is not None:
        rules += tensor('y_embedder.embedding_table.weight', 'label/embedding')
    for i in range(model.depth):
        torch, flax = f'blocks.{i}', f'block_{i}'
        rules += fused_qkv(
            f'{torch}.attn.qkv.weight',
            [f'{flax}/attention/{part}' for part in 'qkv'],
            model.num_heads,
            bias=f'{torch}.attn.qkv.bias',
            head_major=False,
        )
        rules += dense(f'{torch}.attn.proj', f'{flax}/attention/out')
        rules += dense(f'{torch}.mlp.fc1', f'{flax}/mlp_in')
        rules += dense(f'{torch}.mlp.fc2', f'{flax}/mlp_out')
        rules += dense(f'{torch}.adaLN_modulation.1', f'{flax}/modulation')
    return Layout(tuple(rules), {'pos_embed': POSITIONS})


def diffusers(model: dit.Model) -> Layout:
    """The layout of diffusers' DiTTransformer2DModel."""
    blocks = [f'transformer_blocks.{i}' for i in range(model.depth)]
    rules = [
        *conv('pos_embed.proj', 'patch_in'),
        *dense('proj_out_1', 'out_modulation'),
        *dense('proj_out_2', 'out'),
    ]
    for part, flax in (('linear_1', 'time_in'), ('linear_2', 'time_out')):
        for rule in dense(f'norm1.emb.timestep_embedder.{part}', flax):
            rules.append(_repeated(rule, blocks))
    if model.num_classes is not None:
        (table,) = tensor('norm1.emb.class_embedder.embedding_table.weight', 'label/embedding')
        rules.append(_repeated(table, blocks))
    for i, torch in enumerate(blocks):
        flax = f'block_{i}'
        for theirs, ours in (('to_q', 'q'), ('to_k', 'k'), ('to_v', 'v'), ('to_out.0', 'out')):
            rules += dense(f'{torch}.attn1.{theirs}', f'{flax}/attention/{ours}')
        rules += dense(f'{torch}.ff.net.0.proj', f'{flax}/mlp_in')
        rules += dense(f'{torch}.ff.net.2', f'{flax}/mlp_out')
        rules += dense(f'{torch}.norm1.linear', f'{flax}/modulation')
    return Layout(tuple(rules), {'pos_embed.pos_embed': POSITIONS})


def _repeated(rule: Rule, blocks: list[str]) -> Rule:
    """The rule of one tensor for a copy of it in each block; copies that differ are a ValueError."""
    (key,) = rule.torch

    def to_flax(arrays):
        for block, array in zip(blocks, arrays, strict=True):
            if not np.array_equal(array, arrays[0]):
                raise ValueError(f'{block}.{key} differs from its copy in {blocks[0]}, and both must be one')
        return rule.to_flax(arrays[:1])

    def to_torch(arrays):
        return rule.to_torch(arrays) * len(blocks)

    return Rule(tuple(f'{block}.{key}' for block in blocks), rule.flax, to_flax, to_torch)
