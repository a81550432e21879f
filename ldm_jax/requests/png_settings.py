"""A request as the settings that A1111's web UI writes into images, and back.

Names and values are the web UI's where it has them; what it has not has a name of ours. Names of samplers and grids
stay as they were given, since `aliases.resolve` reads all tools' names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import ldm_jax
from ldm_jax.diffusion import aliases
from ldm_jax.requests import image_files, infotext, other_programs
from ldm_jax.requests.request import PAIRS, Request, read_pair

RNG = {'torch_cpu': 'CPU', 'torch_cuda': 'NV', 'jax': 'JAX'}  # the last one is ours
DEFAULT_RNG = 'GPU'  # of the web UI, which then writes nothing


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(' to ')))


# Setting -> (field, how its text is read). Those that need more than a conversion are in `read`.
FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    'Steps': ('num_steps', int),
    'Sampler': ('sampler', str),
    'Schedule type': ('grid', str),
    'CFG scale': ('guidance_scale', float),
    'Seed': ('seed', int),
    'Clip skip': ('clip_skip', int),
    'Denoising strength': ('strength', float),
    'Mask blur': ('mask_blur', float),
    'Masked content': ('mask_content', str),
    'Masked area padding': ('mask_padding', int),
    'Image CFG scale': ('image_guidance_scale', float),
    'Hires upscale': ('hires_scale', float),
    'Hires upscaler': ('hires_upscaler', str),
    'Hires steps': ('hires_steps', int),
    'Refiner': ('refiner', str),
    'Refiner switch at': ('refiner_start', float),
    'Eta': ('eta', float),
    'Guidance rescale': ('guidance_rescale', float),
    'Guidance rule': ('guidance_rule', str),
    'Guidance interval': ('guidance_interval', _numbers),
    'Perturbed attention scale': ('perturbed_scale', float),
    'APG eta': ('apg_eta', float),
    'APG threshold': ('apg_threshold', float),
    'Guide model': ('weak_model', str),
    'Guide scale': ('autoguidance_scale', float),
    'Zero init': ('cfg_zero_share', float),
    'Threshold percentile': ('percentile', float),
    'Noise level': ('noise_level', int),
    'Start': ('start', str),
}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Request)}
ALWAYS = ('num_steps', 'sampler', 'seed')


def write(
    request: Request, index: int, size: tuple[int, int], model: str, guidance_scale: float | None
) -> str:
    """The text of the index-th image.

    Args:
        size: (H, W) of the image.
        model: its name.
        guidance_scale: that it was made with.
    """
    row = request.repeated(request.rows)[index]
    values = {
        name: getattr(request, field)
        for name, (field, _) in FIELDS.items()
        if field in ALWAYS or getattr(request, field) != DEFAULTS[field]
    }
    if request.guidance_interval is not None:
        values['Guidance interval'] = ' to '.join(map(str, request.guidance_interval))
    for name, (_, mark) in PAIRS.items():
        if (pair := getattr(request, name)) is not None:
            values[_title(name)] = mark.join(map(str, pair))
    values |= {'Seed': request.seeds[index], 'CFG scale': guidance_scale}
    values |= {'Size': f'{size[1]}x{size[0]}', 'Model': model, 'RNG': RNG[request.noise_source]}
    if request.labels is not None:
        values['Class'] = row
    prompt = row if request.labels is None else ''
    values |= {'Version': f'{infotext.OURS} {ldm_jax.__version__}'}
    ordered = {'Prompt': prompt, 'Negative prompt': request.negative_prompt} | values
    return infotext.write(ordered)


def read_file(source: str | os.PathLike[str] | bytes) -> dict[str, str]:
    """The settings in an image file, ours, the web UI's or of `other_programs`, in the web UI's names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, without settings, or with those of a program that cannot be read.
    """
    name, texts = image_files.named(source), image_files.texts(source)
    try:
        found = other_programs.read(texts)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from None
    if found is not None:
        return found
    if image_files.PARAMETERS not in texts:
        raise ValueError(
            f'{name} has no text {image_files.PARAMETERS!r} to say what it was made from; it has {sorted(texts)}.'
        )
    return infotext.read(texts[image_files.PARAMETERS])


def read(settings: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a request from settings as `infotext.read` gives them; what is not known is left out.

    Raises ValueError for a value that cannot be read, or a sampler that there is not.
    """
    found: dict[str, Any] = {
        'prompts': (settings.get(infotext.PROMPT, ''),),
        'negative_prompt': settings.get(infotext.NEGATIVE, ''),
    }
    for name, (field, convert) in FIELDS.items():
        if name in settings:
            found[field] = _value(name, settings[name], convert)
    for name in PAIRS:
        if _title(name) in settings:
            found[name] = read_pair(name, settings[_title(name)])
    if 'Size' in settings:
        width, _, height = settings['Size'].partition('x')
        found |= {'width': _value('Size', width, int), 'height': _value('Size', height, int)}
    if 'Class' in settings:
        found['labels'] = (_value('Class', settings['Class'], int),)
    found['noise_source'] = _noise_source(settings.get('RNG', DEFAULT_RNG))
    if 'hires_scale' in found and not settings.get('Version', '').startswith(infotext.OURS):
        found.setdefault('hires_steps', found.get('num_steps'))  # the web UI's default
    if 'sampler' in found:
        aliases.resolve(found['sampler'], found.get('grid'))
    return found


def _title(name: str) -> str:
    return name.replace('_', ' ').capitalize()


def _noise_source(rng: str) -> str:
    known = {text: name for name, text in RNG.items()} | {DEFAULT_RNG: 'torch_cuda'}
    if rng not in known:
        raise ValueError(f'RNG {rng!r} of an image is none of {sorted(known)}.')
    return known[rng]


def _value(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError:
        raise ValueError(f'{name} of an image is {text!r}, which is no {convert.__name__}.') from None
