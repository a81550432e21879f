"""CLIP towers, and the pair of them, as OpenCLIP and OpenAI's own code name them.

In single files, SD 2's text tower is under 'cond_stage_model.model.', SDXL's second one under
'conditioner.embedders.1.model.', and unCLIP's image tower under 'embedder.model.'. q, k and v are one tensor,
and the projections are stored as [width, projection_width], unlike torch's linear layers.
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import (
    Layout,
    Rule,
    conv,
    dense,
    embed,
    fused_qkv,
    norm,
    prefixed,
    tensor,
)
from ldm_jax.models import clip, clip_text, clip_vision

CONSTANTS = {
    'attn_mask': 'the causal mask, a constant',
    **dict.fromkeys(('input_resolution', 'context_length', 'vocab_size'), "a size, in OpenAI's own files"),
}
SCALE = {'logit_scale': 'the temperature of the contrastive loss'}
VISION = {'visual.*': 'the image tower of the pair'}
TEXT = dict.fromkeys(
    ('token_embedding.weight', 'positional_embedding', 'transformer.*', 'ln_final.*', 'text_projection'),
    'the text tower of the pair',
)


def layout(model: clip_text.Model | clip_vision.Model | clip.Model, extra_layers: int = 0) -> Layout:
    """The layout of the file of one tower or of the pair; a tower can be read from the file of the pair too.

    Args:
        model: the tower, or the pair.
        extra_layers: how many layers more than the model a file's text tower has. SD 2 reads the last but one
            layer of 24, and so its model has 23 and its file 1 more.
    """
    if isinstance(model, clip.Model):
        text, vision = _text(model.text, extra_layers), _vision(model.vision)
        rules = (
            *prefixed(text, flax='text/').rules,
            *prefixed(vision, flax='vision/').rules,
            *tensor('logit_scale', 'logit_scale'),
        )
        return Layout(rules, text.ignore | vision.ignore | CONSTANTS)
    if isinstance(model, clip_text.Model):
        tower = _text(model, extra_layers)
        return Layout(tower.rules, tower.ignore | VISION | SCALE | CONSTANTS)
    tower = _vision(model)
    return Layout(tower.rules, tower.ignore | TEXT | SCALE | CONSTANTS)


def _text(model: clip_text.Model, extra_layers: int) -> Layout:
    rules = [
        *embed('token_embedding', 'token_embedding'),
        *tensor('positional_embedding', 'position_embedding'),
        *_layers('transformer', model.num_layers, model.num_heads),
        *norm('ln_final', 'final_norm'),
    ]
    ignore = {
        f'transformer.resblocks.{model.num_layers + i}.*': 'a layer after the last one that is used'
        for i in range(extra_layers)
    }
    if model.projection_width is not None:
        rules += tensor('text_projection', 'projection/kernel')
    else:
        ignore['text_projection'] = 'the model has no projection'
    return Layout(tuple(rules), ignore)


def _vision(model: clip_vision.Model) -> Layout:
    rules = [
        *tensor('visual.class_embedding', 'class_embedding'),
        *conv('visual.conv1', 'patch_embedding', bias=False),
        *tensor('visual.positional_embedding', 'position_embedding'),
        *norm('visual.ln_pre', 'pre_norm'),
        *_layers('visual.transformer', model.num_layers, model.num_heads),
        *norm('visual.ln_post', 'post_norm'),
    ]
    if model.projection_width is not None:
        return Layout((*rules, *tensor('visual.proj', 'projection/kernel')))
    return Layout(tuple(rules), {'visual.proj': 'the model has no projection'})


def _layers(level: str, num_layers: int, num_heads: int) -> list[Rule]:
    rules = []
    for i in range(num_layers):
        torch, flax = f'{level}.resblocks.{i}', f'layer_{i}'
        rules += norm(f'{torch}.ln_1', f'{flax}/norm1')
        rules += fused_qkv(
            f'{torch}.attn.in_proj_weight',
            [f'{flax}/attention/{part}' for part in 'qkv'],
            num_heads,
            bias=f'{torch}.attn.in_proj_bias',
            head_major=False,
        )
        rules += dense(f'{torch}.attn.out_proj', f'{flax}/attention/out')
        rules += norm(f'{torch}.ln_2', f'{flax}/norm2')
        rules += dense(f'{torch}.mlp.c_fc', f'{flax}/ff_in')
        rules += dense(f'{torch}.mlp.c_proj', f'{flax}/ff_out')
    return rules
