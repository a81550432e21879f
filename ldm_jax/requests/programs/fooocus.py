"""Fooocus: an object in the text 'parameters'. Its styles are part of no prompt here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import COMFYUI_NOISE, PARAMETERS, Program, Texts, object_of

NAMES = {
    'prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
    'guidance_scale': 'CFG scale', 'resolution': 'Size', 'sampler': 'Sampler', 'scheduler': 'Schedule type',
    'clip_skip': 'Clip skip', 'base_model': 'Model', 'refiner_model': 'Refiner',
    'refiner_switch': 'Refiner switch at', 'base_model_hash': '', 'metadata_scheme': '', 'version': '',
    'Prompt': 'Prompt', 'Negative Prompt': 'Negative prompt', 'Seed': 'Seed', 'Steps': 'Steps',
    'Guidance Scale': 'CFG scale', 'Resolution': 'Size', 'Sampler': 'Sampler', 'Scheduler': 'Schedule type',
    'Base Model': 'Model', 'Refiner Model': 'Refiner', 'Refiner Switch': 'Refiner switch at', 'Version': '',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    found = object_of(texts.get(PARAMETERS))
    wrote = 'fooocus' in str(found.get('version', found.get('Version', ''))).lower()
    return found if wrote or 'fooocus_scheme' in texts else None


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    if match := re.fullmatch(r'\(?\s*(\d+)\s*[,x×]\s*(\d+)\s*\)?', settings.get('Size', '')):
        settings['Size'] = f'{match[1]}x{match[2]}'
    if settings.get('Refiner') == 'None':
        settings.pop('Refiner')
        settings.pop('Refiner switch at', None)
    return settings


PROGRAM = Program('Fooocus', find, NAMES, COMFYUI_NOISE, adjust=adjusted)
