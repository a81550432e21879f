"""A tiny model of each kind as a pipeline of ours and as diffusers' own, with the same random weights."""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import numpy as np

from ldm_jax import build
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.layouts import rules
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.diffusion import noise_sources
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.inference.pipeline import Pipeline
from tests.checkpoints import folders


def random_params(settings, seed=0):
    """Parameters of the scale of their fan-in, so that signals neither vanish nor grow and every input matters."""
    generator = np.random.default_rng(seed)
    found = {}
    for path, leaf in folders.shapes(settings).items():
        values = generator.standard_normal(leaf.shape, np.float32)
        name = path.rpartition('/')[2]
        if name in ('scale', 'std'):
            values = 1 + 0.1 * values
        elif name == 'embedding' or leaf.ndim < 2:
            values = values * (1.0 if name == 'embedding' else 0.1)
        else:
            values = values * np.prod(leaf.shape[:-1]) ** -0.5
        found[path] = values
    return rules.unflatten(found)


def ours(settings, params=None, devices=1, **options) -> Pipeline:
    """Our pipeline of settings, on so many devices."""
    params = random_params(settings) if params is None else params
    loaded = Loaded(settings, build.parts(settings), params, '')
    return open_pipeline(loaded, devices=jax.devices()[:devices], **options)


@functools.cache
def settings_of(name: str) -> dict:
    """The settings of a kind of folders.TINY; BERT's words, which no package ships, are a few of our own."""
    settings = copy.deepcopy(folders.TINY[name])
    if settings.get('tokenizer', {}).get('name') == 'bert':
        path = Path(_words().name) / 'vocab.txt'
        path.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'red', 'cat', 'two']))
        settings['tokenizer']['vocab'] = str(path)
    return settings


@functools.cache
def _words() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()  # for as long as the process


@functools.cache
def model(name: str) -> Pipeline:
    """Our pipeline of a kind of folders.TINY, with the programs that other tests compiled."""
    return ours(settings_of(name))


@functools.cache
def pair(name: str) -> tuple[Pipeline, object]:
    """(ours, diffusers') of a kind of folders.TINY. diffusers' safety checker and progress bar are off."""
    import diffusers

    settings = settings_of(name)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'model', Path(folder) / 'diffusers'
        store.save_model(source, settings, random_params(settings))
        convert(str(source), str(target), to='diffusers')
        given = dict(depth_estimator=None, feature_extractor=None) if 'Depth' in name else {}
        theirs = diffusers.DiffusionPipeline.from_pretrained(target, **given)
    theirs.set_progress_bar_config(disable=True)
    return model(name), theirs


def noise(seeds, shape, source='torch_cpu'):
    """Starting noise of ours [B, h, w, Z] as the torch tensor [B, Z, h, w] that diffusers takes."""
    import torch

    return torch.from_numpy(noise_sources.noise(source, seeds, shape).transpose(0, 3, 1, 2).copy())


def channels_last(array):
    """A torch tensor or array [B, C, h, w] as numpy [B, h, w, C]."""
    return np.moveaxis(np.asarray(array), 1, -1)


def ddim(pipe):
    """diffusers' DDIM with the settings of Stable Diffusion's repositories, for a pipeline."""
    import diffusers

    return diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


def made_by_ours(task, pipeline, *args, **options):
    """(final latents, images) of a task."""
    latents = []

    class Seen(Pipeline):
        def decode(self, found):
            latents.append(found)
            return super().decode(found)

    fields = {field.name: getattr(pipeline, field.name) for field in dataclasses.fields(pipeline)}
    images = task(Seen(**fields), *args, **options)
    return latents[-1], images


def made_by_theirs(pipe, **call):
    """(latents, images in [-1, 1]) of a pipeline of diffusers, channels last."""
    import torch

    latents = pipe(**call, output_type='latent').images
    with torch.no_grad():
        images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
    return channels_last(latents), channels_last(images)


def channels_first(array):
    """[B, h, w, C] as a torch tensor [B, C, h, w]."""
    import torch

    return torch.from_numpy(np.moveaxis(np.asarray(array), -1, 1).copy())


def generators(*seeds):
    """torch's generator of each seed."""
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


def psnr(ours, theirs):
    """The ratio of signal to noise of images in [-1, 1], in decibels."""
    return 10 * np.log10(4 / np.mean((np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)) ** 2))


def assert_same(latents, expected_latents, images=None, expected_images=None):
    """Final latents within 1e-3 of their scale, and images [B, H, W, 3] in [-1, 1] above 50 dB."""
    error = np.abs(latents - expected_latents).max() / np.abs(expected_latents).max()
    assert error < 1e-3, error
    if images is not None:
        assert psnr(images, expected_images) > 50, psnr(images, expected_images)
