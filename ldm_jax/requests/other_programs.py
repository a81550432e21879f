"""Settings that other programs keep in their images as JSON, in the names of A1111's web UI.

SwarmUI, Fooocus, InvokeAI, NovelAI, Draw Things, ComfyUI and Easy Diffusion are read where what they wrote is plain:
one prompt, one sampler. What is not plain, or of a program that is not known, is an error that names the program.
Settings without a name in the web UI keep their own, so that `png_settings` can say which of them it leaves out.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.requests import comfyui_graph

Texts = Mapping[str, str]  # keyword -> text, of an image file
PARAMETERS = 'parameters'
XMP = 'XML:com.adobe.xmp'

COMFYUI_NOISE = {'RNG': 'CPU', 'Start': 'total'}  # how ComfyUI and what is built on it start
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
    """How a program's settings are found and read.

    Attributes:
        find: its settings among the texts of a file, or None where it did not write them.
        names: its names -> the web UI's; '' where a setting says nothing about pixels.
        always: what it does without saying so.
        unpack: makes settings of what was found, where these are not its entries.
        adjust: what is left to be done to settings in the web UI's names.
    """

    name: str
    find: Callable[[Texts], Mapping[str, Any] | None]
    names: Mapping[str, str]
    always: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unpack: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    adjust: Callable[[dict[str, str]], dict[str, str]] = dict

    def read(self, found: Mapping[str, Any]) -> dict[str, str]:
        """Settings in the web UI's names. Raises ValueError for what is not plain."""
        settings = {'Prompt': '', 'Negative prompt': '', **self.always}
        for key, value in self.unpack(found).items():
            name = self.names.get(key, key)
            if name and (key in self.names or value) and value is not None:
                settings[name] = _text(value)
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


def read(texts: Texts) -> dict[str, str] | None:
    """Settings from the texts of a file in the web UI's names, or None where none of these programs wrote them.

    Raises ValueError, with the program's name, for what cannot be read as plain settings, and for JSON of no
    program that is known.
    """
    if PARAMETERS in texts and _parsed(texts[PARAMETERS]) is None:
        return None  # the web UI's own form, which some of these programs write too
    for program in PROGRAMS:
        found = program.find(texts)
        if found is not None:
            try:
                return program.read(found)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f'written by {program.name}, and not as plain settings: {error}. Give the settings as flags.'
                ) from None
    if PARAMETERS in texts:
        fields = _parsed(texts[PARAMETERS])
        raise ValueError(
            f"its text 'parameters' is JSON of an unknown program, with {list(fields)[:8]}. "
            f'Known are {[program.name for program in PROGRAMS]}.'
        )
    return None


def _parsed(text: str | None) -> dict[str, Any] | list | None:
    """A JSON object or array, or None for any other text."""
    if text is None or not text.lstrip().startswith(('{', '[')):
        return None
    try:
        parsed = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict | list) else None


def _object(text: str | None) -> dict[str, Any]:
    parsed = _parsed(text)
    return parsed if isinstance(parsed, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def _swarmui(texts: Texts) -> Mapping[str, Any] | None:
    return _object(texts.get(PARAMETERS)).get('sui_image_params')


def _fooocus(texts: Texts) -> Mapping[str, Any] | None:
    found = _object(texts.get(PARAMETERS))
    wrote = 'fooocus' in str(found.get('version', found.get('Version', ''))).lower()
    return found if wrote or 'fooocus_scheme' in texts else None


def _invokeai(texts: Texts) -> Mapping[str, Any] | None:
    if 'invokeai_metadata' in texts:
        return _object(texts['invokeai_metadata'])
    if 'sd-metadata' in texts:
        return _object(texts['sd-metadata']).get('image', {})
    return {} if 'Dream' in texts or 'invokeai_graph' in texts else None


def _novelai(texts: Texts) -> Mapping[str, Any] | None:
    return _object(texts.get('Comment')) if texts.get('Software') == 'NovelAI' else None


def _draw_things(texts: Texts) -> Mapping[str, Any] | None:
    for match in re.finditer(r'>\s*(\{[^<]*\})\s*<', texts.get(XMP, '')):
        found = _object(html.unescape(match[1]))
        if 'c' in found and 'seed' in found:
            return found
    return None


def _comfyui(texts: Texts) -> Mapping[str, Any] | None:
    nodes = _object(texts.get('prompt'))
    if any(isinstance(node, dict) and 'class_type' in node for node in nodes.values()):
        return nodes
    return {} if isinstance(_parsed(texts.get('workflow')), dict) else None


def _easy_diffusion(texts: Texts) -> Mapping[str, Any] | None:
    for found in (texts, _object(texts.get(PARAMETERS))):
        if {'num_inference_steps', 'guidance_scale'} <= set(found) or 'Stable Diffusion model' in found:
            return found
    return None


def _negative_layers(settings: dict[str, str]) -> dict[str, str]:
    """SwarmUI counts the text encoder's layers from the end as ComfyUI does, -1 for the last one."""
    if 'Clip skip' in settings:
        settings['Clip skip'] = settings['Clip skip'].lstrip('-')
    return settings


def _fooocus_values(settings: dict[str, str]) -> dict[str, str]:
    if match := re.fullmatch(r'\(?\s*(\d+)\s*[,x×]\s*(\d+)\s*\)?', settings.get('Size', '')):
        settings['Size'] = f'{match[1]}x{match[2]}'
    if settings.get('Refiner') == 'None':
        settings.pop('Refiner')
        settings.pop('Refiner switch at', None)
    return settings


def _invokeai_values(settings: dict[str, str]) -> dict[str, str]:
    if prompts := _parsed(settings['Prompt']):  # of versions before 3: texts with weights
        if len(prompts) != 1:
            raise ValueError(f'it has {len(prompts)} prompts with weights')
        settings['Prompt'] = prompts[0]['prompt']
        settings['Negative prompt'] = ' '.join(re.findall(r'\[(.*?)\]', settings['Prompt']))
        settings['Prompt'] = re.sub(r'\s*\[.*?\]', '', settings['Prompt'])
    name = settings.get('Sampler', '')
    if name.endswith('_k'):
        settings |= {'Sampler': name.removesuffix('_k'), 'Schedule type': 'karras'}
    if 'Clip skip' in settings:  # layers that are left out
        settings['Clip skip'] = str(int(settings['Clip skip']) + 1)
    settings['RNG'] = {'cpu': 'CPU', 'cuda': 'NV'}.get(settings['RNG'], settings['RNG'])
    return settings


def _novelai_values(settings: dict[str, str]) -> dict[str, str]:
    if settings.get('Schedule type') == 'native':
        settings['Schedule type'] = 'normal'
    if settings.get('Guidance rescale') == '0':
        settings.pop('Guidance rescale')
    return settings


def _draw_things_values(settings: dict[str, str]) -> dict[str, str]:
    modes = {'Torch CPU Compatible': 'CPU', 'Nvidia GPU Compatible': 'NV'}
    if settings.get('seed_mode') in modes:
        settings['RNG'] = modes[settings.pop('seed_mode')]
    return _without_full_strength(settings)


def _easy_diffusion_values(settings: dict[str, str]) -> dict[str, str]:
    layers = {'True': '2', 'False': '1'}
    if 'Clip skip' in settings:
        settings['Clip skip'] = layers.get(settings['Clip skip'], settings['Clip skip'])
    return settings


def _without_full_strength(settings: dict[str, str]) -> dict[str, str]:
    if settings.get('Denoising strength') == '1':  # which is what they write without a start image
        settings.pop('Denoising strength')
    return settings


PROGRAMS = (
    Program(
        'SwarmUI',
        _swarmui,
        {
            'prompt': 'Prompt', 'negativeprompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
            'cfgscale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'sampler': 'Sampler',
            'scheduler': 'Schedule type', 'comfyuisampler': 'Sampler', 'comfyuischeduler': 'Schedule type',
            'clipstopatlayer': 'Clip skip', 'initimagecreativity': 'Denoising strength', 'model': 'Model',
            'images': '', 'aspectratio': '', 'sidelength': '', 'swarm_version': '', 'date': '', 'generation_time': '',
            'batchsize': '', 'resolution': '', 'original_prompt': '', 'presets': '',
        },
        {'Sampler': 'euler', 'Schedule type': 'normal'} | COMFYUI_NOISE,
        adjust=_negative_layers,
    ),
    Program(
        'Fooocus',
        _fooocus,
        {
            'prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
            'guidance_scale': 'CFG scale', 'resolution': 'Size', 'sampler': 'Sampler', 'scheduler': 'Schedule type',
            'clip_skip': 'Clip skip', 'base_model': 'Model', 'refiner_model': 'Refiner',
            'refiner_switch': 'Refiner switch at', 'base_model_hash': '', 'metadata_scheme': '', 'version': '',
            'Prompt': 'Prompt', 'Negative Prompt': 'Negative prompt', 'Seed': 'Seed', 'Steps': 'Steps',
            'Guidance Scale': 'CFG scale', 'Resolution': 'Size', 'Sampler': 'Sampler', 'Scheduler': 'Schedule type',
            'Base Model': 'Model', 'Refiner Model': 'Refiner', 'Refiner Switch': 'Refiner switch at', 'Version': '',
        },
        COMFYUI_NOISE,
        adjust=_fooocus_values,
    ),
    Program(
        'InvokeAI',
        _invokeai,
        {
            'positive_prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps',
            'cfg_scale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'scheduler': 'Sampler',
            'cfg_rescale_multiplier': 'Guidance rescale', 'clip_skip': 'Clip skip', 'strength': 'Denoising strength',
            'rand_device': 'RNG', 'model': 'Model', 'prompt': 'Prompt', 'sampler': 'Sampler', 'app_version': '',
            'generation_mode': '', 'type': '', '_canvas_objects': '',
        },
        {'RNG': 'CPU', 'Start': 'total'},
        adjust=_invokeai_values,
    ),
    Program(
        'NovelAI',
        _novelai,
        {
            'prompt': 'Prompt', 'uc': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps', 'scale': 'CFG scale',
            'width': 'Width', 'height': 'Height', 'sampler': 'Sampler', 'noise_schedule': 'Schedule type',
            'strength': 'Denoising strength', 'cfg_rescale': 'Guidance rescale', 'n_samples': '', 'request_type': '',
            'signed_hash': '', 'hide_debug_overlay': '', 'version': '',
        },
        {},
        adjust=_novelai_values,
    ),
    Program(
        'Draw Things',
        _draw_things,
        {
            'c': 'Prompt', 'uc': 'Negative prompt', 'seed': 'Seed', 'steps': 'Steps', 'scale': 'CFG scale',
            'size': 'Size', 'sampler': 'Sampler', 'strength': 'Denoising strength', 'model': 'Model', 'v2': '',
            'profile': '',
        },
        {},
        adjust=_draw_things_values,
    ),
    Program(
        'ComfyUI',
        _comfyui,
        {name: name for name in comfyui_graph.NAMES},
        COMFYUI_NOISE,
        unpack=comfyui_graph.settings,
        adjust=_without_full_strength,
    ),
    Program(
        'Easy Diffusion',
        _easy_diffusion,
        {
            'prompt': 'Prompt', 'negative_prompt': 'Negative prompt', 'seed': 'Seed', 'num_inference_steps': 'Steps',
            'guidance_scale': 'CFG scale', 'width': 'Width', 'height': 'Height', 'sampler_name': 'Sampler',
            'prompt_strength': 'Denoising strength', 'clip_skip': 'Clip skip', 'use_stable_diffusion_model': 'Model',
            'Prompt': 'Prompt', 'Seed': 'Seed', 'Steps': 'Steps', 'Width': 'Width', 'Height': 'Height',
            'Negative Prompt': 'Negative prompt', 'Guidance Scale': 'CFG scale', 'Clip Skip': 'Clip skip',
            'Prompt Strength': 'Denoising strength', 'Stable Diffusion model': 'Model',
        },
        adjust=_easy_diffusion_values,
    ),
)  # fmt: skip
