"""A program whose settings become those of A1111's web UI, and the reading of JSON that its modules share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

Texts = Mapping[str, str]  # keyword -> text, of an image file
PARAMETERS = 'parameters'

COMFYUI_NOISE = {'RNG': 'CPU', 'Start': 'total'}  # how ComfyUI and the programs built on it start
SAMPLERS = {  # of these programs -> the name that `aliases` knows
    'ddpm': 'DDPMScheduler',
    'deis': 'DEISMultistepScheduler',
    'dpm2': 'DPM2',
    'dpm2_a': 'DPM2 a',
    'dpmpp_2m_sde': 'DPM++ 2M SDE',
    'dpmpp_2s': 'DPMSolverSinglestepScheduler',
    'dpmpp_2s_a': 'DPM++ 2S a',
    'dpmpp_3m': 'DPM++ 3M SDE',
    'euler_a': 'Euler a',
    'euler ancestral': 'Euler a',
    'kdpm_2': 'KDPM2DiscreteScheduler',
    'kdpm_2_a': 'KDPM2AncestralDiscreteScheduler',
    'k_dpmpp_2s_ancestral': 'DPM++ 2S a',
    'pndm': 'PNDMScheduler',
}


@dataclasses.dataclass(frozen=True)
class Program:
    """Rules by which the settings of a program are found and read.

    Attributes:
        find: its settings among the texts of a file, or None where it did not write them.
        names: its names -> the web UI's; '' where a setting says nothing about pixels.
        always: what it does without saying so.
        unpack: makes settings of what was found, where these are not its entries.
        adjust: the last changes, to settings in the web UI's names.
    """

    name: str
    find: Callable[[Texts], Mapping[str, Any] | None]
    names: Mapping[str, str]
    always: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unpack: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    adjust: Callable[[dict[str, str]], dict[str, str]] = dict

    def read(self, found: Mapping[str, Any]) -> dict[str, str]:
        """Settings in the web UI's names. Raises ValueError where they are not plain."""
        settings = {'Prompt': '', 'Negative prompt': '', **self.always}
        for key, value in self.unpack(found).items():
            name = self.names.get(key, key)
            if name and (key in self.names or value) and value is not None:
                settings[name] = text_of(value)
        width, height = settings.pop('Width', None), settings.pop('Height', None)
        if width and height:
            settings['Size'] = f'{width}x{height}'
        settings = self.adjust(settings)
        if 'Seed' not in settings:
            raise ValueError('it has no seed')
        if 'Sampler' in settings:
            name = settings['Sampler']
            settings['Sampler'] = SAMPLERS.get(name.lower(), name)
        return settings


def parsed(text: str | None) -> dict[str, Any] | list | None:
    """A JSON object or array, or None for any other text."""
    if text is None or not text.lstrip().startswith(('{', '[')):
        return None
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def object_of(text: str | None) -> dict[str, Any]:
    """A JSON object, {} for any other text."""
    found = parsed(text)
    return found if isinstance(found, dict) else {}


def text_of(value: Any) -> str:
    """A JSON value as the web UI writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def without_full_strength(settings: dict[str, str]) -> dict[str, str]:
    """Settings without a strength of 1, which some programs write without a start image."""
    if settings.get('Denoising strength') == '1':
        settings.pop('Denoising strength')
    return settings
