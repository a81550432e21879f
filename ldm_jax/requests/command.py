"""What tools/sample.py does: a request from its flags, resolved, carried out and written to a folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax import knobs
from ldm_jax.checkpoints import loading
from ldm_jax.diffusion import aliases, grids
from ldm_jax.images import contact_sheet, save_png
from ldm_jax.inference import preview as previews
from ldm_jax.inference.opening import open_described
from ldm_jax.inference.watching import Step, watched
from ldm_jax.progress import Meter
from ldm_jax.requests import (
    check,
    flags,
    gallery,
    learned_words,
    png_settings,
    resolve,
    silent_prompts,
    tasks,
)
from ldm_jax.requests.options import ModelOptions, Output
from ldm_jax.requests.plan import Plan
from ldm_jax.requests.request import MAX_PIXELS, Request


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line each, without the place in the code, and each once."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f'warning: {message}', file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter('once', UserWarning)
        warnings.showwarning = show
        yield


@_plain_warnings()
def request_of(args: argparse.Namespace) -> Request:
    """The request of flags: fields that are given, then those of an image's text, then defaults.

    Raises ValueError or FileNotFoundError for files that cannot be read and prompts from two places.
    """
    given = flags.given(args, Request)
    if args.prompts_file is not None:
        if 'prompt' in given:
            raise ValueError('There are prompts from --prompt and from --prompts_file: give one of them.')
        given['prompt'] = check.read_prompts(args.prompts_file)
    defaults: Mapping[str, Any] = dict(num_images=4)
    if 'interpolate' in given:  # one way through the prompts, or from one seed to the next
        defaults = dict(num_images=1 if len(given.get('prompt', ())) > 1 else 2)
    if args.from_png is not None:
        defaults = png_settings.read(_settings_of(args))
    return knobs.make(Request, {**defaults, **given})


@_plain_warnings()
def options_of(args: argparse.Namespace) -> ModelOptions:
    """The options of flags, then those of an image's text, then defaults. Raises as `request_of`."""
    defaults = {}
    if args.from_png is not None:
        defaults = png_settings.read_options(_settings_of(args))
    return flags.made(args, ModelOptions, defaults)


def _settings_of(args: argparse.Namespace) -> dict[str, str]:
    return png_settings.read_file(args.from_png, flags.given(args, Request).get('max_pixels', MAX_PIXELS))


def sample(args: argparse.Namespace, output: Output) -> list[pathlib.Path]:
    """What the flags ask for, as `run` does it; fields that an image's text brought in are named as such."""
    request, options = request_of(args), options_of(args)
    try:
        return run(request, options, output)
    except tasks.Misfit as error:
        theirs = error.fields - flags.given(args, Request).keys()
        if args.from_png is None or not theirs:
            raise
        comes = 'comes' if len(theirs) == 1 else 'come'
        raise ValueError(
            f'{error} ({tasks.named_fields(theirs)} {comes} from the text of {args.from_png}.)'
        ) from None


def run(request: Request, options: ModelOptions, output: Output) -> list[pathlib.Path]:
    """Samples, with a bar, and writes images into a folder: their paths."""
    with _plain_warnings():
        plan = resolve.resolve(request, options)
        folder = gallery.prepare(output.out)
        start = time.monotonic()
        watch = _Watch(plan, folder / 'preview.png', output)
        with watched(watch):
            images = carry_out(plan, options.batch_size)
        watch.close()
        return _written(plan, options, images, folder, output, time.monotonic() - start)


def carry_out(plan: Plan, batch_size: int | None = None) -> np.ndarray:
    """Images [B, H, W, 3] in [-1, 1] of a plan, whose models are opened for it."""
    pipeline = open_described(plan.model, batch_size=batch_size)
    silent_prompts.warn_of_words(plan.request, pipeline)
    refiner = plan.refiner and open_described(plan.refiner, batch_size=batch_size)
    return tasks.run(plan, pipeline, refiner)


def _written(
    plan: Plan,
    options: ModelOptions,
    images: np.ndarray,
    folder: pathlib.Path,
    output: Output,
    seconds: float,
) -> list[pathlib.Path]:
    """Writes the images and says so: their paths, and that of the sheet behind them."""
    request, scale = plan.request, output.scale or (8 if images.shape[-2] <= 64 else 1)
    guidance = plan.sampling.guidance.scale
    used = list(zip(plan.adapters, plan.model.adapters, strict=True))
    texts = [
        png_settings.write(
            request, i, plan.asked_size, options, guidance, images.shape[1:3], used, _hashes(plan, i)
        )
        for i in range(len(images))
    ]
    names = [f'{seed}-{row}' for seed, row in zip(plan.seeds, plan.prompts, strict=True)]
    if request.interpolate is not None:
        shares = _captions(plan) * len(request.rows)
        titles = [title for title in _titles(request) for _ in request.shares]
        each = zip(plan.seeds, shares, titles, strict=True)
        names = [f'{seed}-{share}-{title}' for seed, share, title in each]
    paths = gallery.save(folder, images, texts, names, scale)
    if len(images) > 1:
        rows = images.reshape(len(request.rows), request.per_row, *images.shape[1:])
        captions = _captions(plan)[: request.per_row]
        paths.append(gallery.save_sheet(folder, rows, _titles(request), captions, texts[0], scale))
    if output.json:
        made = [
            dict(path=str(path), seed=seed, parameters=text)
            for path, seed, text in zip(paths, plan.seeds, texts, strict=False)
        ]
        sheet = str(paths[-1]) if len(images) > 1 else None
        report = dict(images=made, sheet=sheet, task=plan.task, seconds=round(seconds, 3))
        report['request'] = knobs.flat(request) | dict(guidance_scale=guidance)
        print(json.dumps(report, ensure_ascii=False, default=str))
    else:
        count = '1 image' if len(images) == 1 else f'{len(images)} images'
        print(f'{count} in {seconds:.1f} s, loading and compilation included')
        print(*paths, sep='\n')
    return paths


def _hashes(plan: Plan, i: int) -> str:
    """The hashes of learned words in the prompts of an image."""
    if plan.request.labels is not None:
        return ''
    prompting = plan.sampling.prompting
    return learned_words.hashes(plan.model, prompting, plan.prompts[i], plan.request.negative_prompt)


def _titles(request: Request) -> list[str]:
    if request.interpolate is not None:
        return [' ... '.join(prompts) for prompts, _ in request.ways]
    return [str(row) if request.labels is None else f'class {row}' for row in request.rows]


def _captions(plan: Plan) -> list[str]:
    if plan.request.interpolate is not None:
        return [f'{share:.0%}' for share in plan.request.shares]
    if plan.request.variation_seeds is not None:
        return [f'variation {seed}' for seed in plan.request.variation_seeds]
    return [f'seed {seed}' for seed in plan.seeds]


def listing() -> str:
    """The known samplers and grids, and other tools' names for them."""
    lines = ['samplers: ' + ' '.join(aliases.names()), 'grids: ' + ' '.join(grids.names()), '']
    lines.append('| name elsewhere | sampler | grid |\n|---|---|---|')
    for name, (sampler, grid) in aliases.SAMPLERS.items():
        lines.append(f'| {name} | {_spec(sampler)} | {_spec(grid)} |')
    lines.append('\n| grid elsewhere | grid |\n|---|---|')
    lines += [f'| {name} | {_spec(grid)} |' for name, grid in aliases.GRIDS.items()]
    return '\n'.join(lines)


def _spec(spec: Mapping[str, Any]) -> str:
    rest = ', '.join(f'{key}={value}' for key, value in spec.items() if key != 'name')
    return ' '.join(word for word in (spec.get('name', ''), rest and f'({rest})') if word)


class _Watch:
    """Shows each step: a bar with an estimate, and previews of the batch in hand."""

    def __init__(self, plan: Plan, path: pathlib.Path, output: Output):
        self.path, self.every = path, output.preview
        self.meter: Meter | None = None
        self.factor, self.tiny = plan.model.parts.scaling_factor, None
        if output.preview_model is not None:
            tiny = loading.load(output.preview_model, ['first_stage'])
            self.tiny = jax.jit(previews.tiny(tiny.parts['first_stage'], tiny.params['first_stage']))

    def __call__(self, step: Step) -> None:
        if step.done == 1:
            self.close()
            self.meter = Meter(step.total, 'sampling')
        self.meter.advance()
        if self.every and step.done % self.every == 0:
            save_png(self.path, contact_sheet(self._seen(step)[None]))

    def _seen(self, step: Step) -> np.ndarray:
        latents = step.x0()
        if self.tiny is not None:
            return np.asarray(self.tiny(latents))
        try:
            return np.asarray(previews.linear(latents.shape[-1], self.factor)(latents))
        except ValueError:  # a latent space whose colours nobody published
            return step.decode(latents)

    def close(self) -> None:
        if self.meter is not None:
            self.meter.close()
            self.meter = None
