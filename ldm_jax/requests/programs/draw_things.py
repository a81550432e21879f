"""Draw Things: an object in the user comment of XMP."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from ldm_jax.requests.programs.program import Program, Texts, object_of, without_full_strength

XMP = 'XML:com.adobe.xmp'
NAMES = {
    'c': 'Prompt', 'uc': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps', 'scale': 'CFG scale',
    'size': 'Size', 'sampler': 'Sampler', 'strength': 'Denoising strength', 'model': 'Model', 'profile': '',
}  # fmt: skip


def find(texts: Texts) -> Mapping[str, Any] | None:
    for match in re.finditer(r'>\s*(\{[^<]*\})\s*<', texts.get(XMP, '')):
        found = object_of(html.unescape(match[1]))
        if 'c' in found and 'seed' in found:
            return found
    return None


def adjusted(settings: dict[str, str]) -> dict[str, str]:
    modes = {'Torch CPU Compatible': 'CPU', 'Nvidia GPU Compatible': 'NV'}
    if settings.get('seed_mode') in modes:
        settings['RNG'] = modes[settings.pop('seed_mode')]
    return without_full_strength(settings)


PROGRAM = Program('Draw Things', find, NAMES, adjust=adjusted)
