"""A request as the settings that A1111's web UI writes into images, and back.

Names and values are the web UI's where it has them, those of `web_ui` in other forms too; what it has not has a name
of ours. Each field of a request says its name in its description (`knobs.Knob.png`), so that a new field is written
and read without a line here. Names of samplers and grids stay as they were given, since `aliases.resolve` reads all
tools' names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ldm_jax
from ldm_jax import knobs
from ldm_jax.adapters.files import Adapter
from ldm_jax.diffusion import aliases
from ldm_jax.requests import adapters, image_files, infotext, spec_settings, web_ui
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.programs import read as programs
from ldm_jax.requests.request import MAX_PIXELS, Request

FIELDS = {each.knob.png: each for each in knobs.settings(Request).values() if each.knob.png}
OPTIONS = {each.knob.png: each for each in knobs.settings(ModelOptions).values() if each.knob.png}
WAY = 'Interpolation of'  # prompts, as JSON, or a number of seeds
BROKEN_JSON = re.compile(r'\s*[{[]\s*["{[]')
ALWAYS = ('Steps', 'Sampler', 'Seed', 'RNG')
LONG = 80  # characters of a value in a warning
FIRST = ('Steps', 'Sampler', 'Schedule type', 'CFG scale', 'Seed', 'Size', 'Model')  # in the web UI's order


def write(
    request: Request,
    index: int,
    size: tuple[int, int],
    options: ModelOptions = ModelOptions(),  # noqa: B008 (frozen)
    guidance_scale: float | None = None,
    made: tuple[int, int] | None = None,
    used: Sequence[tuple[adapters.Named, Adapter]] = (),
    word_hashes: str | None = None,
) -> str:
    """The text of the index-th image.

    Args:
        size: (H, W) that was asked for; with a second pass, of the first.
        options: the model, and how it was opened.
        guidance_scale: that it was made with.
        made: (H, W) of the image, where that is another size.
        used: adapters, which become tags behind the prompt.
        word_hashes: of the learned words in its prompts, '' for none; by default the request's.
    """
    request = dataclasses.replace(request, sampling=request.sampling.completed())
    values = {}
    for fields, settings in ((FIELDS, request), (OPTIONS, options)):
        given, every = knobs.changed(settings), knobs.flat(settings)
        values |= {
            name: _text(each, every[each.name])
            for name, each in fields.items()
            if name in ALWAYS or each.name in given
        }
    for field in spec_settings.NAMES:
        if isinstance(spec := getattr(request.sampling, field), Mapping):
            values |= spec_settings.write(field, spec)
    row = request.repeated(request.rows)[index]
    tagged = ''.join(f' {each.tag}' for each, _ in used)
    values |= {'Prompt': f'{row}{tagged}'} if request.labels is None else {'Prompt': '', 'Class': row}
    values |= adapters.settings(used)
    if word_hashes is not None:
        values['TI hashes'] = word_hashes or None
    values |= {'Seed': request.seeds[index], 'CFG scale': guidance_scale}
    if request.interpolate is not None:
        prompts, seeds = request.ways[index // request.per_row]
        values['Interpolation share'] = request.shares[index % request.per_row]
        values[WAY] = json.dumps(prompts, ensure_ascii=False) if len(prompts) > 1 else len(seeds)
    if request.sampling.variation_seed is not None:
        values['Variation seed'] = request.variation_seeds[index]
    values |= {'Size': f'{size[1]}x{size[0]}', 'Model': options.model}
    if made is not None and tuple(made) != tuple(size):
        values[infotext.MADE] = f'{made[1]}x{made[0]}'
    values |= {'Version': f'{infotext.OURS} {ldm_jax.__version__}'}
    return infotext.write({name: values[name] for name in FIRST if name in values} | values)


def read_file(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """The settings in an image file, ours, the web UI's or of `programs`, in the web UI's names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, without settings, or with those of a program that cannot be read.
    """
    name, texts = image_files.named(source), image_files.texts(source, max_pixels)
    try:
        found = programs.read(texts)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from None
    if found is not None:
        return found
    if image_files.PARAMETERS not in texts:
        raise ValueError(
            f'{name} has no text {image_files.PARAMETERS!r} to say what it was made from; it has {sorted(texts)}.'
        )
    settings = infotext.read(texts[image_files.PARAMETERS])
    if 'Steps' not in settings and BROKEN_JSON.match(settings['Prompt']):
        raise ValueError(
            f'{name}: its text {image_files.PARAMETERS!r} begins as JSON and is none; it is damaged.'
        )
    return settings


def read(settings: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a request by flat name, from settings as `infotext.read` gives them.

    Warns of settings that have no meaning here, naming each, and of a sheet, whose settings are its first image's.

    Raises ValueError for a value that cannot be read, or an unknown sampler.
    """
    settings = web_ui.translated(settings, _ours(settings))
    settings.pop(infotext.MADE, None)
    if sheet := settings.pop(infotext.SHEET, None):
        warnings.warn(f'A sheet of {sheet} images has the settings of its first one.', stacklevel=2)
    found: dict[str, Any] = {}
    way = settings.pop(WAY, None)
    if 'Size' in settings:
        found['width'], found['height'] = web_ui.size('Size', settings.pop('Size'))
    found |= _values(FIELDS, settings)
    if 'sampler' in found:
        aliases.resolve(found['sampler'], found.get('grid'))  # raises at once for an unknown name
    spec_settings.read(settings, found)
    _warn_of({name: text for name, text in settings.items() if name not in FIELDS | OPTIONS})
    if way is not None:
        found |= _way(way)
    return found


def _warn_of(settings: Mapping[str, str]) -> None:
    """Warns of settings that are left out."""
    if settings:
        short = {
            name: text if len(text) <= LONG else text[: LONG - 3] + '...' for name, text in settings.items()
        }
        shown = ', '.join(f'{name}: {text}' for name, text in short.items())
        warnings.warn(f'Settings of the image without a meaning here are left out: {shown}.', stacklevel=3)


def read_options(settings: Mapping[str, str]) -> dict[str, Any]:
    """Fields of ModelOptions by name, likewise. Raises ValueError for a value that cannot be read."""
    return _values(OPTIONS, web_ui.translated(settings, _ours(settings)))


def _way(text: str) -> dict[str, Any]:
    """The fields of an interpolation's way: its prompts, or how many seeds."""
    try:
        stops = json.loads(text)
        if isinstance(stops, int):
            return dict(num_images=stops)
        return dict(prompt=tuple(map(str, stops)))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f'{WAY} of an image is {text!r}, neither a number of seeds nor a list of prompts.'
        ) from None


def _ours(settings: Mapping[str, str]) -> bool:
    return settings.get('Version', '').startswith(infotext.OURS)


def _values(fields: Mapping[str, knobs.Setting], settings: Mapping[str, str]) -> dict[str, Any]:
    return {each.name: _value(each, settings[name]) for name, each in fields.items() if name in settings}


def _text(setting: knobs.Setting, value: Any) -> str:
    words = setting.knob.png_words
    return words[value] if words and value in words else knobs.write(setting, value)


def _value(setting: knobs.Setting, text: str) -> Any:
    name, words = setting.knob.png, {word: value for value, word in setting.knob.png_words.items()}
    if words:
        if (
            text not in words and text not in setting.knob.png_words and '.' not in text
        ):  # a dotted name is ours
            raise ValueError(f'{name} of an image is {text!r}, which is none of {list(words)}.')
        return words.get(text, text)
    try:
        return knobs.read(setting, text)
    except ValueError as error:
        raise ValueError(f'{name} of an image is {text!r}: {error}') from None
