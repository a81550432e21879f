"""ComfyUI: the graph that was run, where it is plain: one sampler, literal texts, an empty or an encoded latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import (
    COMFYUI_NOISE,
    Program,
    Texts,
    object_of,
    parsed,
    without_full_strength,
)

Nodes = Mapping[str, Mapping[str, Any]]  # id -> {'class_type': ..., 'inputs': {name: value or [id, slot]}}

SAMPLERS = ('KSampler', 'KSamplerAdvanced')
EMPTY = ('EmptyLatentImage', 'EmptySD3LatentImage')
PLAIN = {
    *SAMPLERS, *EMPTY, 'CheckpointLoaderSimple', 'CLIPSetLastLayer', 'CLIPTextEncode', 'LoadImage', 'Note',
    'PreviewImage', 'SaveImage', 'VAEDecode', 'VAEDecodeTiled', 'VAEEncode',
}  # fmt: skip

NAMES = (
    'Prompt', 'Negative prompt', 'Steps', 'Sampler', 'Schedule type', 'CFG scale', 'Seed', 'Denoising strength',
    'Width', 'Height', 'Model', 'Clip skip',
)  # fmt: skip


def settings(nodes: Nodes) -> dict[str, Any]:
    """Settings in the names of A1111's web UI. Raises ValueError, KeyError or TypeError for another graph."""
    if not nodes:
        raise ValueError("it has a workflow alone, without the graph that was run ('prompt')")
    classes = {node['class_type'] for node in nodes.values()}
    if classes - PLAIN:
        raise ValueError(f'its graph has the nodes {sorted(classes - PLAIN)}')
    samplers = [node for node in nodes.values() if node['class_type'] in SAMPLERS]
    if len(samplers) != 1:
        raise ValueError(f'its graph has {len(samplers)} nodes that sample')
    inputs = samplers[0]['inputs']
    if samplers[0]['class_type'] == 'KSamplerAdvanced':
        _check_whole(inputs)
    found = {
        'Prompt': _text(nodes, inputs['positive']),
        'Negative prompt': _text(nodes, inputs['negative']),
        'Steps': inputs['steps'],
        'Sampler': inputs['sampler_name'],
        'Schedule type': inputs['scheduler'],
        'CFG scale': inputs['cfg'],
        'Seed': inputs['seed'] if 'seed' in inputs else inputs['noise_seed'],
        'Denoising strength': inputs.get('denoise', 1),
    }
    links = [name for name, value in found.items() if isinstance(value, list)]
    if links:
        raise ValueError(f'its {links} come from other nodes')
    latent = _node(nodes, inputs['latent_image'])
    if latent['class_type'] in EMPTY:
        found |= {'Width': latent['inputs']['width'], 'Height': latent['inputs']['height']}
    for node in nodes.values():
        if node['class_type'] == 'CheckpointLoaderSimple':
            found['Model'] = node['inputs']['ckpt_name']
        if node['class_type'] == 'CLIPSetLastLayer':
            found['Clip skip'] = -node['inputs']['stop_at_clip_layer']
    return found


def _check_whole(inputs: Mapping[str, Any]) -> None:
    """Raises ValueError for a part of the steps alone."""
    whole = inputs['start_at_step'] == 0 and inputs['end_at_step'] >= inputs['steps']
    if not whole or inputs['add_noise'] != 'enable':
        raise ValueError('its sampler takes a part of the steps')


def _node(nodes: Nodes, link: Any) -> Mapping[str, Any]:
    return nodes[str(link[0])]


def _text(nodes: Nodes, link: Any) -> str:
    node = _node(nodes, link)
    text = node['inputs'].get('text')
    if node['class_type'] != 'CLIPTextEncode' or not isinstance(text, str):
        raise ValueError(f'its text comes from the node {node["class_type"]}')
    return text


def find(texts: Texts) -> Mapping[str, Any] | None:
    nodes = object_of(texts.get('prompt'))
    if any(isinstance(node, dict) and 'class_type' in node for node in nodes.values()):
        return nodes
    return {} if isinstance(parsed(texts.get('workflow')), dict) else None


PROGRAM = Program(
    'ComfyUI',
    find,
    {name: name for name in NAMES},
    COMFYUI_NOISE | {'Prompt syntax': 'comfyui'},
    unpack=settings,
    adjust=without_full_strength,
)
