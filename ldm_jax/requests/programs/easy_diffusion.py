"""Easy Diffusion: a text for each setting, or an object of them in 'parameters'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import PARAMETERS, Program, Texts, object_of

NAMES = {
    'prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'num_inference_steps': 'Steps',
    'guidance_scale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'sampler_name': 'Sampler',
    'prompt_strength': 'Denoising strength', 'clip_skip': 'Clip skip', 'use_stable_diffusion_model': 'Model',
    'Prompt': 'Prompt', 'Seed': 'Seed', 'Steps': 'Steps', 'Width': 'Width', 'Height': 'Height',
    'Negative Prompt': 'Negative prompt', 'Guidance Scale': 'CFG scale', 'Clip Skip': 'Clip skip',
    'Prompt Strength': 'Denoising strength', 'Stable Diffusion model': 'Model',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    for found in (texts, object_of(texts.get(PARAMETERS))):
        if {'num_inference_steps', 'guidance_scale'} <= set(found) or 'Stable Diffusion model' in found:
            return found
    return None


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    layers = {'True': '2', 'False': '1'}
    if 'Clip skip' in settings:
        settings['Clip skip'] = layers.get(settings['Clip skip'], settings['Clip skip'])
    return settings


PROGRAM = Program('Easy Diffusion', find, NAMES, adjust=adjusted)
