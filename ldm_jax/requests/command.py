"""What tools/sample.py does: a request from its flags, checked, sampled and written to a folder."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.checkpoints import loading, store
from ldm_jax.diffusion import aliases, grids
from ldm_jax.images import contact_sheet, save_png
from ldm_jax.inference import model as parts_of
from ldm_jax.inference import model_kinds
from ldm_jax.inference import preview as previews
from ldm_jax.inference.pipeline import Step, open_pipeline
from ldm_jax.progress import Meter
from ldm_jax.requests import gallery, png_settings, tasks
from ldm_jax.requests.request import PAIRS, Request, check, read_pair, read_prompts

PROMPTED = ('text', 'inpaint', 'edit', 'depth')  # kinds of models that make little without a prompt


def request(
    given: Mapping[str, Any],
    prompts: Sequence[str] | None = None,
    prompts_file: str | None = None,
    from_png: str | None = None,
) -> Request:
    """The request of flags, checked: fields that are given, then those of an image, then defaults.

    Raises ValueError or FileNotFoundError, as `check`, and ValueError for prompts from two places.
    """
    if prompts and prompts_file:
        raise ValueError('There are prompts from --prompt and from --prompts_file: give one of them.')
    fields: dict[str, Any] = dict(num_images=4)
    if from_png is not None:
        fields = png_settings.read(png_settings.read_file(from_png))
    fields |= {name: _plain(name, value) for name, value in given.items()}
    if prompts or prompts_file:
        fields['prompts'] = tuple(prompts or read_prompts(prompts_file))
    asked = Request(**fields)
    check(asked)
    return asked


def _plain(name: str, value: Any) -> Any:
    if name in PAIRS:
        return read_pair(name, value)
    return tuple(value) if isinstance(value, list) else value


def run(
    asked: Request,
    model: str,
    out: str,
    *,
    dtype: str = 'float32',
    batch_size: int | None = None,
    preview: int | None = None,
    preview_model: str | None = None,
    scale: int | None = None,
    as_json: bool = False,
    **options: Any,
) -> list[pathlib.Path]:
    """Samples, with a bar, and writes images into the folder `out`: their paths.

    Args:
        model, dtype, batch_size: of the pipeline.
        preview: write out/preview.png every so many steps.
        preview_model: a tiny autoencoder of the same latents to preview with; published colours by default.
        scale: each pixel becomes scale x scale of them; 8 by default up to 64 pixels wide, 1 beyond.
        as_json: print one JSON object instead of lines.
        options: others of open_pipeline: seamless, window, tile.
    """
    folder = gallery.prepare(out)
    directory = loading.resolve(model)
    described = parts_of.from_settings(store.open_model(directory).settings)
    if asked.clip_skip != 1:
        parts_of.skipping(described, asked.clip_skip)
    task = tasks.task_of(described, asked)  # before any parameters are read
    if asked.prompts is None and model_kinds.kind(described) in PROMPTED:
        raise ValueError(f'{task} wants a prompt: give --prompt, --prompts_file or --from_png.')
    if asked.weak_model is not None:
        weak = loading.resolve(asked.weak_model)
        parts_of.with_weak_model(described, store.open_model(weak).settings)
    watch = _Watch(folder / 'preview.png', preview, preview_model)
    options |= dict(dtype=dtype, batch_size=batch_size, listener=watch)
    start = time.monotonic()
    pipeline = open_pipeline(directory, weak_model=asked.weak_model, clip_skip=asked.clip_skip, **options)
    watch.pipeline = pipeline
    refiner = open_pipeline(asked.refiner, **options) if asked.refiner else None
    images = tasks.run(pipeline, asked, refiner)
    watch.close()
    seconds = time.monotonic() - start
    guidance = tasks.guidance_scale(pipeline.parts, asked, pipeline.guidance_scale)
    texts = [png_settings.write(asked, i, images.shape[1:3], model, guidance) for i in range(len(images))]
    rows = asked.repeated(asked.rows)
    names = [f'{seed}-{row}' for seed, row in zip(asked.seeds, rows, strict=True)]
    scale = scale or (8 if images.shape[-2] <= 64 else 1)
    paths = gallery.save(folder, images, texts, names, scale)
    if len(images) > 1:
        sheet = images.reshape(len(asked.rows), asked.num_images, *images.shape[1:])
        titles = [str(row) if asked.labels is None else f'class {row}' for row in asked.rows]
        seeds = asked.seeds[: asked.num_images]
        paths.append(gallery.save_sheet(folder, sheet, titles, seeds, texts[0], scale))
    if as_json:
        made = [
            dict(path=str(path), seed=seed, parameters=text)
            for path, seed, text in zip(paths, asked.seeds, texts, strict=False)
        ]
        rest = dict(sheet=str(paths[-1]) if len(images) > 1 else None, task=task, seconds=round(seconds, 3))
        print(json.dumps(dict(images=made, request=dataclasses.asdict(asked), **rest), ensure_ascii=False))
    else:
        print(f'{len(images)} images in {seconds:.1f} s, loading and compilation included')
        print(*paths, sep='\n')
    return paths


def listing() -> str:
    """The samplers and grids that there are, and other tools' names for them."""
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
    """Told of each step: a bar with an estimate, and previews of the batch in hand."""

    def __init__(self, path: pathlib.Path, every: int | None, model: str | None):
        self.path, self.every = path, every
        self.pipeline: Any = None
        self.meter: Meter | None = None
        self.tiny = None
        if model is not None:
            tiny = loading.load(model, ['first_stage'])
            self.tiny = jax.jit(previews.tiny(tiny.parts['first_stage'], tiny.params['first_stage']))

    def __call__(self, step: Step) -> None:
        if step.done == 1:
            self.close()
            self.meter = Meter(step.total, 'sampling')
        self.meter.advance()
        if self.every and step.done % self.every == 0:
            save_png(self.path, contact_sheet(self._seen(step.x0())[None]))

    def _seen(self, latents: np.ndarray) -> np.ndarray:
        parts = self.pipeline.parts
        if self.tiny is not None:
            return np.asarray(self.tiny(latents))
        try:
            return np.asarray(previews.linear(latents.shape[-1], parts.scaling_factor)(latents))
        except ValueError:  # a latent space whose colours nobody published
            return self.pipeline.decode(latents)

    def close(self) -> None:
        if self.meter is not None:
            self.meter.close()
            self.meter = None
