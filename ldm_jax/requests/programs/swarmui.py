"""SwarmUI: an object 'sui_image_params' in the text 'parameters'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import COMFYUI_NOISE, PARAMETERS, Program, Texts, object_of

NAMES = {
    'prompt': 'Prompt', 'negativeprompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
    'cfgscale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'sampler': 'Sampler',
    'scheduler': 'Schedule type', 'comfyuisampler': 'Sampler', 'comfyuischeduler': 'Schedule type',
    'clipstopatlayer': 'Clip skip', 'initimagecreativity': 'Denoising strength', 'model': 'Model',
    'images': '', 'aspectratio': '', 'sidelength': '', 'swarm_version': '', 'date': '', 'generation_time': '',
    'batchsize': '', 'resolution': '', 'original_prompt': '', 'presets': '',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    return object_of(texts.get(PARAMETERS)).get('sui_image_params')


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    """SwarmUI counts the text encoder's layers from the end as ComfyUI does, -1 for the last one."""
    if 'Clip skip' in settings:
        settings['Clip skip'] = settings['Clip skip'].lstrip('-')
    return settings


PROGRAM = Program(
    'SwarmUI', find, NAMES, {'Sampler': 'euler', 'Schedule type': 'normal'} | COMFYUI_NOISE, adjust=adjusted
)
