"""CLIP towers, and the pair of them, as the transformers library names them.

Folders of Stable Diffusion hold such files (text_encoder/, text_encoder_2/, image_encoder/); in SD 1's single
files these keys are under 'cond_stage_model.transformer.'. 'pre_layrnorm' is spelled so in all of them.
"""

from __future__ import annotations

from ldm_jax.checkpoints.layouts.rules import Layout, Rule, conv, dense, embed, norm, prefixed, tensor
from ldm_jax.models import clip, clip_text, clip_vision

POSITIONS = 'the numbers 0, 1, 2, ..., which older versions stored'
TEXT = {'text_model.*': 'the text tower of the pair', 'text_projection.weight': 'the text tower of the pair'}
VISION = {
    'vision_model.*': 'the image tower of the pair',
    'visual_projection.weight': 'the image tower of the pair',
}
SCALE = {'logit_scale': 'the temperature of the contrastive loss'}


def layout(model: clip_text.Model | clip_vision.Model | clip.Model, nested: bool = True) -> Layout:
    """The layout of the file of one tower or of the pair; a tower can be read from the file of the pair too.

    Args:
        model: the tower, or the pair.
        nested: keys of a tower's file begin with 'text_model.' or 'vision_model.'. That level is missing
            where transformers since 5.6 wrote a tower without its projection, never in the pair's file.
    """
    if isinstance(model, clip.Model):
        text, vision = _text(model.text, nested=True), _vision(model.vision, nested=True)
        rules = (
            *prefixed(text, flax='text/').rules,
            *prefixed(vision, flax='vision/').rules,
            *tensor('logit_scale', 'logit_scale'),
        )
        return Layout(rules, text.ignore | vision.ignore)
    if isinstance(model, clip_text.Model):
        tower = _text(model, nested)
        return Layout(tower.rules, tower.ignore | VISION | SCALE)
    tower = _vision(model, nested)
    return Layout(tower.rules, tower.ignore | TEXT | SCALE)


def _text(model: clip_text.Model, nested: bool) -> Layout:
    level = 'text_model.' if nested else ''
    rules = [
        *embed(f'{level}embeddings.token_embedding', 'token_embedding'),
        *tensor(f'{level}embeddings.position_embedding.weight', 'position_embedding'),
        *_layers(level, model.num_layers),
        *norm(f'{level}final_layer_norm', 'final_norm'),
    ]
    ignore = {f'{level}embeddings.position_ids': POSITIONS}
    if model.projection_width is not None:
        rules += dense('text_projection', 'projection', bias=False)
    else:
        ignore['text_projection.weight'] = 'the model has no projection'
    return Layout(tuple(rules), ignore)


def _vision(model: clip_vision.Model, nested: bool) -> Layout:
    level = 'vision_model.' if nested else ''
    rules = [
        *tensor(f'{level}embeddings.class_embedding', 'class_embedding'),
        *conv(f'{level}embeddings.patch_embedding', 'patch_embedding', bias=False),
        *tensor(f'{level}embeddings.position_embedding.weight', 'position_embedding'),
        *norm(f'{level}pre_layrnorm', 'pre_norm'),
        *_layers(level, model.num_layers),
        *norm(f'{level}post_layernorm', 'post_norm'),
    ]
    ignore = {f'{level}embeddings.position_ids': POSITIONS}
    if model.projection_width is not None:
        rules += dense('visual_projection', 'projection', bias=False)
    else:
        ignore['visual_projection.weight'] = 'the model has no projection'
    return Layout(tuple(rules), ignore)


def _layers(level: str, num_layers: int) -> list[Rule]:
    rules = []
    for i in range(num_layers):
        torch, flax = f'{level}encoder.layers.{i}', f'layer_{i}'
        rules += norm(f'{torch}.layer_norm1', f'{flax}/norm1')
        for part in ('q', 'k', 'v', 'out'):
            rules += dense(f'{torch}.self_attn.{part}_proj', f'{flax}/attention/{part}')
        rules += norm(f'{torch}.layer_norm2', f'{flax}/norm2')
        rules += dense(f'{torch}.mlp.fc1', f'{flax}/ff_in')
        rules += dense(f'{torch}.mlp.fc2', f'{flax}/ff_out')
    return rules
