"""NovelAI: an object in the text 'Comment'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import Program, Texts, object_of

NAMES = {
    'prompt': 'Prompt', 'uc': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps', 'scale': 'CFG scale',
    'width': 'Width', 'height': 'Height', 'sampler': 'Sampler', 'noise_schedule': 'Schedule type',
    'strength': 'Denoising strength', 'cfg_rescale': 'Guidance rescale', 'n_samples': '', 'request_type': '',
    'signed_hash': '', 'hide_debug_overlay': '', 'version': '',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    return object_of(texts.get('Comment')) if texts.get('Software') == 'NovelAI' else None


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    if settings.get('Schedule type') == 'native':
        settings['Schedule type'] = 'normal'
    if settings.get('Guidance rescale') == '0':
        settings.pop('Guidance rescale')
    return settings


PROGRAM = Program('NovelAI', find, NAMES, adjust=adjusted)
