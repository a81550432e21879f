"""A model that makes images: what every task of this folder is given.

from ldm_jax.inference.pipeline import open_pipeline
from ldm_jax.pipelines.text_to_image import text_to_image

images = text_to_image(open_pipeline('emoji32'), 'a red apple, noto style', seed=1)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.build import build
from ldm_jax.checkpoints import loading
from ldm_jax.diffusion import noise, noise_sources
from ldm_jax.diffusion.multidiffusion import Windows
from ldm_jax.diffusion.sampling import padded
from ldm_jax.inference import model as parts_of
from ldm_jax.inference.guidance import Guide
from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.programs import Images, Job, KnownRegion, Programs, joined, pad
from ldm_jax.inference.settings import TABLE, Sampling, per_image
from ldm_jax.inference.sizes import Sizes, check_size
from ldm_jax.inference.tiled import FirstStage
from ldm_jax.inference.traced import Traced
from ldm_jax.types import Cond, NoiseLevel, PyTree, Sampler, Solver, Tokenizer


@dataclasses.dataclass(frozen=True)
class Step:
    """How far a run has come, for those who watch it."""

    done: int
    total: int
    # The latents [b, h, w, Z] that this step was heading for, of the batch in hand.
    x0: Callable[[], np.ndarray]


Listener = Callable[[Step], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """Networks, parameters, tokenizers and compiled programs of one model.

    Attributes:
        batch_size: images that are sampled at a time on all devices together; all of a call by default. With as many
            as devices an image is the same to the bit whatever batch it is made in (programs.Programs).
        listener: told after each step. Steps then are separate calls of the same program.
        guidance_scale: that suits the model, where its settings say so; Sampling has its own default.
    """

    parts: Parts
    params: Params
    tokenizers: tuple[Tokenizer, ...]
    programs: Programs | Traced
    batch_size: int | None = None
    listener: Listener | None = None
    guidance_scale: float | None = None

    def traced(self) -> Pipeline:
        """The same model with nothing compiled, for JAX arrays: gradients flow through its methods (traced.py)."""
        return dataclasses.replace(self, programs=Traced(self.parts), batch_size=None)

    def size(self, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(H, W) of an image: what is asked for, or what the model was trained on.

        Raises ValueError, with the nearest size that works, unless its sides are multiples of what the model needs.
        """
        side = self.parts.latent_size * self.parts.downscale
        size = (side, side) if size is None else tuple(size)
        check_size(size, self.parts.multiple)
        return size

    def text(
        self,
        prompts: Sequence[str],
        size: tuple[int, int],
        *,
        negative: bool = False,
        sizes: Sizes | None = None,
    ) -> Cond:
        """What the U-Net is told by B texts.

        Args:
            size: (H, W) of the images, for models that are told of it.
            negative: SDXL's base is told zeros, not an empty text, of what is not wanted, as in its training.
            sizes: what SDXL is told of the images' making; that they were not cropped by default.

        Raises ValueError for a model without a text encoder or a tokenizer, and for sizes that it is not told.
        """
        if self.parts.text_encoder is None or not self.tokenizers:
            raise ValueError('This model reads no texts: it has no text encoder with a tokenizer.')
        if sizes is not None and not self.parts.num_sizes:
            raise ValueError(f'This model is told no sizes: leave {sizes} out. SDXL and its refiner are.')
        tokens = tuple(tokenizer(list(prompts)) for tokenizer in self.tokenizers)
        zeros = negative and self.parts.text_encoder_2 is not None
        keep = np.array([not zeros or bool(prompt.strip()) for prompt in prompts], np.float32)
        if not self.parts.num_sizes:
            return self._batched(Parts.text, tokens, keep)
        numbers = np.asarray((sizes or Sizes()).numbers(self.parts, size, negative), np.float32)
        numbers = np.broadcast_to(numbers, (len(keep), len(numbers)))
        return self._batched(Parts.text, tokens, keep, numbers)

    def encode(self, images: np.ndarray, eps: np.ndarray | None = None) -> np.ndarray:
        """Images [B, H, W, 3] in [-1, 1] to latents [B, h, w, Z]: the posterior's samples by eps, or its means."""
        return self._batched(Parts.encode, images, eps)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents [B, h, w, Z] to images [B, H, W, 3] in [-1, 1]."""
        return self._batched(Parts.decode, latents)

    def noise(
        self, seeds: Sequence[int], size: tuple[int, int], source: str = 'jax', draw: int = 0
    ) -> np.ndarray:
        """Standard normal latents [B, h, w, Z] for images of size (H, W): the draw-th noise of each seed."""
        return noise_sources.noise(source, seeds, self.parts.latents(1, size)[1:], draw)

    def sample(
        self,
        sampling: Sampling,
        x: np.ndarray,
        levels: NoiseLevel,
        conds: tuple[Cond, ...],
        seeds: Sequence[int],
        *,
        sampler: Sampler | Solver | None = None,
        guide: Guide | None = None,
        kept: KnownRegion | None = None,
        stop: int | None = None,
    ) -> np.ndarray:
        """Walks x [B, h, w, Z] down the levels, told conds: latents.

        Args:
            sampling: whose sampler and guidance these are; levels are its own, or a part of them.
            conds: as many as the guidance wants, the unconditional one first.
            seeds: [B], of the noise that samplers add.
            sampler, guide: in place of sampling's.
            kept: what inpainting keeps.
            stop: the level to stop at, the last one by default. To samplers that remember, a run that stops is not
                one that ends.
        """
        batch = len(x)
        guide = sampling.guide(batch) if guide is None else guide
        if guide.auto is not None and self.parts.weak_model is None:
            raise ValueError(
                'autoguidance_scale is away from a weak model: open the pipeline with one (weak_model).'
            )
        sampler = sampling.plan(self.parts.schedule)[0] if sampler is None else sampler
        each = [f.name for f in dataclasses.fields(sampler) if np.ndim(getattr(sampler, f.name))]
        images = Images(
            x=x if isinstance(x, jax.Array) else np.asarray(x, np.float32),
            keys=_sampler_keys(seeds),
            conds=conds,
            guide=guide,
            kept=kept,
            sampler=None if not each else jax.tree.map(lambda a: per_image(a, batch), sampler),
        )
        if stop is not None and hasattr(sampler, 'solve'):  # which knows of the ends alone
            levels = jax.tree.map(lambda a: a[: stop + 1], levels)
        count = len(levels.sigma) - 1
        job = Job(
            images=images,
            levels=padded(levels, TABLE),
            num_steps=np.int32(count),
            sampler=None if each else sampler,
            interval=sampling.guidance_interval and tuple(map(np.float32, sampling.guidance_interval)),
            cfg_zero_share=sampling.cfg_zero_share and np.float32(sampling.cfg_zero_share),
            percentile=sampling.percentile and np.float32(sampling.percentile),
        )
        made, size = [], self._share(batch)
        for first in range(0, batch, size):
            share = jax.tree.map(lambda a: pad(a[first : first + size], size), images)  # noqa: B023
            made.append(
                self._run(
                    dataclasses.replace(job, images=share), count if stop is None else stop, first, batch
                )
            )
        return joined(made, batch)

    def _run(self, job: Job, count: int, first: int, batch: int) -> np.ndarray:
        """The latents of one batch after so many steps, with the listener told."""
        carry = self.programs.begin(self.params, job)
        if self.listener is None or isinstance(self.programs, Traced) or hasattr(job.sampler, 'solve'):
            carry = self.programs.advance(self.params, job, carry, 0, count)
            return self.programs.latents(carry)
        size = len(job.images.keys)
        done, total = first // size * count, -(-batch // size) * count
        for i in range(count):
            before, carry = carry, self.programs.advance(self.params, job, carry, i, i + 1)
            seen = functools.partial(self._heading, job.levels, i, before, carry)
            self.listener(Step(done + i + 1, total, seen))
        return self.programs.latents(carry)

    def _heading(self, levels: NoiseLevel, i: int, before: PyTree, after: PyTree) -> np.ndarray:
        """x0_hat of a step of the probability-flow ODE between two latents: both are alpha x0 + sigma eps."""
        (a, b), (s, r) = levels.alpha[i : i + 2], levels.sigma[i : i + 2]
        return (s * self.programs.latents(after) - r * self.programs.latents(before)) / (s * b - r * a)

    def _share(self, batch: int) -> int:
        """How many images are worked on at a time."""
        return self.programs.shares(min(batch, self.batch_size or batch))

    def _batched(self, function: Callable[..., PyTree], *batches: PyTree) -> PyTree:
        batch = len(jax.tree.leaves(batches)[0])
        size = self._share(batch)
        made = []
        for first in range(0, batch, size):
            share = jax.tree.map(lambda a: pad(a[first : first + size], size), batches)  # noqa: B023
            made.append(self.programs.map(function, self.params, *share))
        return joined(made, batch)


def _sampler_keys(seeds: Sequence[int]) -> np.ndarray:
    with jax.ensure_compile_time_eval():  # numbers, where a program is traced around the pipeline too
        return np.asarray(jax.random.key_data(noise.streams(seeds)[1]))


def open_pipeline(
    model: str | loading.Loaded,
    *,
    dtype: str = 'float32',
    devices: Sequence[jax.Device] | None = None,
    weak_model: str | loading.Loaded | None = None,
    clip_skip: int = 1,
    seamless: str | None = None,
    window: int | None = None,
    tile: int | None = None,
    **options: Any,
) -> Pipeline:
    """The pipeline of a model: a name, path or hub id as `checkpoints.loading.load` takes them, or what it gave.

    Args:
        dtype: of the computation; norms, softmax and the sampler's own arithmetic stay float32.
        devices: to spread batches over; all local ones by default.
        weak_model: a model whose U-Net is to be guided away from (autoguidance): smaller, or of an earlier step, with
            the same latents and texts. Named as the model is.
        clip_skip: the context is the text encoder's last layer but clip_skip - 1, through the final norm, as the web
            UI has it for Stable Diffusion 1 and 2.
        seamless: axes on which images continue in themselves: 'x', 'y' or 'xy'.
        window: pixels along the sides of what the U-Net sees at once, for larger images (MultiDiffusion). Half of
            each overlaps the next one.
        tile: pixels along the sides of the tiles that the first stage works on, for its memory. A quarter overlaps.
        options: fields of Pipeline.

    Raises what `load` raises, and ValueError for a model that cannot be sampled or a weak model that does not fit it.
    """
    loaded = loading.load(model) if isinstance(model, str) else model
    parts = parts_of.from_settings(loaded.settings, dtype)
    params = loaded.params
    if weak_model is not None:
        worse = loading.load(weak_model, ['unet']) if isinstance(weak_model, str) else weak_model
        parts = parts_of.with_weak_model(parts, worse.settings, dtype)
        params = params | {'weak_model': worse.params['unet']}
    if clip_skip != 1:
        parts = parts_of.skipping(parts, clip_skip)
    if seamless is not None:
        parts = parts_of.seamless(parts, seamless)
    if window is not None:
        side = _latents(parts, window, parts.unet.downscale)
        parts = dataclasses.replace(parts, windows=Windows(side, side // 2))
    if tile is not None:
        side = _latents(parts, tile, 1)
        parts = dataclasses.replace(parts, first_stage=FirstStage(parts.first_stage, side, side // 4))
    options = dict(guidance_scale=loaded.settings.get('guidance_scale')) | options
    programs = Programs(parts, tuple(jax.local_devices() if devices is None else devices))
    names = [name for name in ('tokenizer', 'tokenizer_2') if name in loaded.settings]
    tokenizers = tuple(build('text', loaded.settings[name]) for name in names)
    return Pipeline(parts, programs.place(params), tokenizers, programs, **options)


def _latents(parts: Parts, pixels: int, multiple: int) -> int:
    """So many pixels in latents. Raises ValueError unless they are as many as networks can halve."""
    check_size((pixels, pixels), parts.downscale * multiple)
    return pixels // parts.downscale


def seeds_from(seed: int | Sequence[int], batch: int) -> list[int]:
    """A seed for each image: seed, seed + 1, ..., or those that are given. Raises ValueError for another count."""
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(batch)]
    if len(seed) != batch:
        raise ValueError(f'{len(seed)} seeds for {batch} images: give one for each, or the first one alone.')
    return [int(each) for each in seed]
