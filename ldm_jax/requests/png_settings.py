"""A request as the settings that A1111's web UI writes into images, and back.

Names and values are the web UI's where it has them; what it has not has a name of ours. Names of samplers and grids
stay as they were given, since `aliases.resolve` reads all tools' names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import ldm_jax
from ldm_jax import knobs
from ldm_jax.diffusion import aliases
from ldm_jax.requests import image_files, infotext, other_programs
from ldm_jax.requests.request import Request

RNG = {'torch_cpu': 'CPU', 'torch_cuda': 'NV', 'jax': 'JAX'}  # the last one is ours
DEFAULT_RNG = 'GPU'  # of the web UI, which then writes nothing


FIELDS = {each.knob.png: each for each in knobs.settings(Request).values() if each.knob.png}
ALWAYS = ('Steps', 'Sampler', 'Seed')


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
    given, every = knobs.changed(request), knobs.flat(request)
    values = {
        name: knobs.write(each, every[each.name])
        for name, each in FIELDS.items()
        if name in ALWAYS or each.name in given
    }
    values |= {'Seed': request.seeds[index], 'CFG scale': guidance_scale}
    values |= {'Size': f'{size[1]}x{size[0]}', 'Model': model, 'RNG': RNG[request.sampling.noise_source]}
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
        'prompt': (settings.get(infotext.PROMPT, ''),),
        'negative_prompt': settings.get(infotext.NEGATIVE, ''),
    }
    for name, each in FIELDS.items():
        if name in settings:
            found[each.name] = _value(name, settings[name], functools.partial(knobs.read, each))
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


def _noise_source(rng: str) -> str:
    known = {text: name for name, text in RNG.items()} | {DEFAULT_RNG: 'torch_cuda'}
    if rng not in known:
        raise ValueError(f'RNG {rng!r} of an image is none of {sorted(known)}.')
    return known[rng]


def _value(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise ValueError(f'{name} of an image is {text!r}: {error}') from None
