"""The text transformer of latent diffusion, in the original names and in those of diffusers (LDMBertModel).

The original keys are those below 'cond_stage_model.transformer.'; even layers are attentions there, odd ones
feed-forwards. Both kinds of file hold the output layer of a language model too, which nothing ever used.
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, dense, embed, norm, tensor
from ldm_jax.models import bert

IGNORE = {'to_logits.*': 'the output layer of a language model, neither trained nor used'}


def layout(model: bert.Model, names: str = 'compvis') -> Layout:
    """The layout of a file; names: 'compvis' for the original, 'diffusers' for a folder's bert/.

    Raises ValueError for other names.
    """
    if names not in _LAYOUTS:
        raise ValueError(f'No bert names {names!r}; have {sorted(_LAYOUTS)}.')
    return _LAYOUTS[names](model)


def _compvis(model: bert.Model) -> Layout:
    rules = [
        *embed('token_emb', 'token_embedding'),
        *tensor('pos_emb.emb.weight', 'position_embedding'),
        *norm('norm', 'final_norm'),
    ]
    for i in range(model.num_layers):
        attention, feed_forward = f'attn_layers.layers.{2 * i}', f'attn_layers.layers.{2 * i + 1}'
        rules += norm(f'{attention}.0', f'layer_{i}/norm1')
        for part in 'qkv':
            rules += dense(f'{attention}.1.to_{part}', f'layer_{i}/attention/{part}', bias=False)
        rules += dense(f'{attention}.1.to_out', f'layer_{i}/attention/out')
        rules += norm(f'{feed_forward}.0', f'layer_{i}/norm2')
        rules += dense(f'{feed_forward}.1.net.0.0', f'layer_{i}/ff_in')
        rules += dense(f'{feed_forward}.1.net.2', f'layer_{i}/ff_out')
    return Layout(tuple(rules), IGNORE)


def _diffusers(model: bert.Model) -> Layout:
    rules = [
        *embed('model.embed_tokens', 'token_embedding'),
        *tensor('model.embed_positions.weight', 'position_embedding'),
        *norm('model.layer_norm', 'final_norm'),
    ]
    for i in range(model.num_layers):
        torch, flax = f'model.layers.{i}', f'layer_{i}'
        rules += norm(f'{torch}.self_attn_layer_norm', f'{flax}/norm1')
        for part in 'qkv':
            rules += dense(f'{torch}.self_attn.{part}_proj', f'{flax}/attention/{part}', bias=False)
        rules += dense(f'{torch}.self_attn.out_proj', f'{flax}/attention/out')
        rules += norm(f'{torch}.final_layer_norm', f'{flax}/norm2')
        rules += dense(f'{torch}.fc1', f'{flax}/ff_in')
        rules += dense(f'{torch}.fc2', f'{flax}/ff_out')
    return Layout(tuple(rules), IGNORE)


_LAYOUTS = {'compvis': _compvis, 'diffusers': _diffusers}
