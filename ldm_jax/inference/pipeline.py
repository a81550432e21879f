"""A model that makes images: what every task of this folder is given.

from ldm_jax.inference.opening import open_pipeline
from ldm_jax.pipelines.text_to_image import text_to_image

images = text_to_image(open_pipeline('emoji32'), 'a red apple, noto style', seed=1)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import adapted
from ldm_jax.conditioning import combine, prompts
from ldm_jax.conditioning.combine import Conditions
from ldm_jax.conditioning.networks import TEXT_ENCODERS
from ldm_jax.diffusion import noise, noise_sources
from ldm_jax.diffusion.changing import Changing, with_parts
from ldm_jax.diffusion.sampling import padded
from ldm_jax.inference import guidance as guided
from ldm_jax.inference import model_kinds, watching
from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.programs import Images, KnownRegion, Programs, SamplerRun, joined, pad
from ldm_jax.inference.settings import TABLE, Guidance, Prompting, Sampling
from ldm_jax.inference.sizes import check_size
from ldm_jax.inference.traced import Traced
from ldm_jax.text.prompts.words import Word
from ldm_jax.types import Cond, NoiseLevel, PyTree, Sampler, Solver, Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """Networks, parameters, tokenizers and compiled programs of one model.

    Attributes:
        batch_size: images that are sampled at a time on all devices together; all of a call by default. With as many
            as devices an image is the same to the bit whatever batch it is made in (programs.Programs).
        guidance_scale, sampling: that suit the model, where its settings say so.
        words: learned words (textual inversion) that prompts may name, those that fit the model's text encoders.
        strengths: of K adapters that are factors in the program: [K], [B, K], or [B, K, S] for each of S steps; 1 by
            default. They multiply those that the adapters were opened with.
    """

    parts: Parts
    params: Params
    tokenizers: tuple[Tokenizer, ...]
    programs: Programs | Traced
    batch_size: int | None = None
    guidance_scale: float | None = None
    sampling: Mapping[str, Any] | None = None
    strengths: np.ndarray | None = None
    words: Mapping[str, Word] = dataclasses.field(default_factory=dict)

    def with_strengths(self, strengths: Sequence | np.ndarray) -> Pipeline:
        """The same model with other strengths of its adapters, for which nothing compiles.

        Texts are encoded with the first step's where there are several. Raises ValueError for another number of
        adapters than those that are factors.
        """
        strengths, count = np.asarray(strengths, np.float32), self.num_adapters
        if not 1 <= strengths.ndim <= 3 or strengths.shape[strengths.ndim > 1] != count:
            raise ValueError(
                f'Strengths are [K], [B, K] or [B, K, S] of K = {count} adapters that were opened with live=True; got '
                f'{list(strengths.shape)}.'
            )
        return dataclasses.replace(self, strengths=strengths)

    @property
    def num_adapters(self) -> int:
        """How many adapters are factors in the program."""
        return adapted.count(self.params.get(adapted.COLLECTION, {}))

    def _strengths(self, batch: int) -> np.ndarray | None:
        """The strengths [B, K], or [B, K, TABLE] by steps, of which the last one goes on."""
        if not self.params.get(adapted.COLLECTION):
            return None
        found = np.ones(self.num_adapters, np.float32) if self.strengths is None else self.strengths
        found = np.broadcast_to(found, (batch, *found.shape[found.ndim > 1 :]))
        if found.ndim < 3:
            return found
        return np.concatenate([found, np.repeat(found[..., -1:], TABLE - found.shape[2], axis=2)], axis=2)

    def traced(self) -> Pipeline:
        """The same model with nothing compiled, for JAX arrays: gradients flow through its methods (traced.py)."""
        return dataclasses.replace(self, programs=Traced(self.parts), batch_size=None)

    def size(self, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """(H, W) of an image: the given one, or that of the images the model was trained on.

        Raises ValueError, with the nearest size that works, unless its sides are multiples of what the model needs.
        """
        side = self.parts.latent_size * self.parts.downscale
        size = (side, side) if size is None else tuple(size)
        check_size(size, self.parts.multiple)
        return size

    def plan(self, sampling: Sampling) -> tuple[Sampler | Solver, NoiseLevel]:
        """The sampler and its levels [S + 1], the model's own where sampling leaves them open."""
        return sampling.completed(self.sampling).plan(self.parts.schedule)

    def guidance(self, sampling: Sampling, batch: int) -> Guidance:
        """The numbers of guidance for B images, with the scale that suits the model where sampling leaves it open."""
        left_open = isinstance(sampling.guidance.scale, str)  # OWN
        own = model_kinds.own_scale(self.parts, self.guidance_scale) if left_open else None
        found = guided.arrays(sampling.guidance, batch, own)
        return guided.embedded(found, batch) if self.parts.embeds_guidance else found

    def conditions(self, given: Mapping[str, Mapping[str, np.ndarray]], *, guided: bool = True) -> Conditions:
        """(unconditional, conditional) of B images for each kind of conditioning in `given`.

        Args:
            given: name of a kind -> the arrays [B, ...] that its `sample` takes (ldm_jax/conditioning).
            guided: False makes the conditional ones alone.

        Raises ValueError for a kind that the model does not have, and where something is missing.
        """
        combine.check_given(self.parts.kinds, given)
        given = {name: dict(arrays) for name, arrays in given.items()}
        for name, arrays in given.items():
            if guided and 'tokens' in arrays and 'negative_tokens' not in arrays:
                given[name] = arrays | self.tokens([''] * len(arrays['tokens']), 'negative_')
        if not given:
            return {}
        batch = len(jax.tree.leaves(given)[0])
        strengths = self._strengths(batch)
        strengths = strengths if strengths is None or strengths.ndim == 2 else strengths[..., 0]
        if guided:
            return self.map(Parts.conditions, given, strengths)
        return {name: (None, cond) for name, cond in self.map(Parts.conditional, given, strengths).items()}

    def tokens(self, texts: Sequence[str], prefix: str = '') -> dict[str, np.ndarray]:
        """Texts as conditioning.text takes them: 'tokens' [B, L], and 'tokens_2' for a second text encoder.

        prefix: before the names: 'negative_' for what guidance leads away from.

        Raises ValueError for a model without a text encoder or a tokenizer.
        """
        self._check_texts()
        names = [prefix + name for name in TEXT_ENCODERS.values()]
        return {name: tokenizer(list(texts)) for name, tokenizer in zip(names, self.tokenizers, strict=False)}

    def reader(self, prompting: Prompting) -> prompts.Reader:
        """What reads prompts for the model's tokenizers. Raises ValueError as `tokens`."""
        self._check_texts()
        return prompts.reader(self.tokenizers, self.words, prompting.syntax, prompting.emphasis)

    def encode(self, images: np.ndarray, eps: np.ndarray | None = None) -> np.ndarray:
        """Images [B, H, W, 3] in [-1, 1] to latents [B, h, w, Z]: the posterior's samples by eps, or its means."""
        return self.map(Parts.encode, images, eps)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents [B, h, w, Z] to images [B, H, W, 3] in [-1, 1]."""
        return self.map(Parts.decode, latents)

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
        conds: tuple[Cond | Changing, ...],
        seeds: Sequence[int],
        *,
        sampler: Sampler | Solver | None = None,
        guidance: Guidance | None = None,
        kept: KnownRegion | None = None,
        stop: int | None = None,
    ) -> np.ndarray:
        """Walks x [B, h, w, Z] down the levels under conditionings: latents.

        Args:
            sampling: whose sampler and guidance these are; levels are its own, or a part of them.
            conds: as many as the guidance needs, the unconditional one first.
            seeds: [B], of the noise that samplers add.
            sampler: in place of sampling's.
            guidance: numbers of B images, as `guidance` gives them; sampling's by default.
            kept: what inpainting keeps.
            stop: the level to stop at, the last one by default. To samplers that remember, a run that stops is not
                one that ends.
        """
        batch = len(x)
        guidance = self.guidance(sampling, batch) if guidance is None else guidance
        if guidance.autoguidance_scale is not None and self.parts.weak_model is None:
            raise ValueError(
                'autoguidance_scale is away from a weak model: open the pipeline with one (weak_model).'
            )
        sampler = self.plan(sampling)[0] if sampler is None else sampler
        own, shared = guided.split(guidance)
        if (strengths := self._strengths(batch)) is not None:
            conds = tuple(with_parts(cond, strengths=strengths) for cond in conds)
        each = [f.name for f in dataclasses.fields(sampler) if np.ndim(getattr(sampler, f.name))]
        images = Images(
            x=x if isinstance(x, jax.Array) else np.asarray(x, np.float32),
            keys=_sampler_keys(seeds),
            conds=conds,
            guidance=own,
            kept=kept,
            sampler=None if not each else jax.tree.map(lambda a: guided.per_image(a, batch), sampler),
        )
        if stop is not None and hasattr(sampler, 'solve'):  # which knows of the ends alone
            levels = jax.tree.map(lambda a: a[: stop + 1], levels)
        count = len(levels.sigma) - 1
        job = SamplerRun(
            images=images,
            levels=padded(levels, TABLE),
            num_steps=np.int32(count),
            sampler=None if each else sampler,
            guidance=shared,
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

    def _run(self, job: SamplerRun, count: int, first: int, batch: int) -> np.ndarray:
        """The latents of one batch after so many steps, as watched."""
        carry = self.programs.begin(self.params, job)
        listener = watching.listening()
        if listener is None or isinstance(self.programs, Traced) or hasattr(job.sampler, 'solve'):
            carry = self.programs.advance(self.params, job, carry, 0, count)
            return self.programs.latents(carry)
        size = len(job.images.keys)
        done, total = first // size * count, -(-batch // size) * count
        for i in range(count):
            before, carry = carry, self.programs.advance(self.params, job, carry, i, i + 1)
            seen = functools.partial(self._heading, job.levels, i, before, carry)
            listener(watching.Step(done + i + 1, total, seen, self.decode))
        return self.programs.latents(carry)

    def _heading(self, levels: NoiseLevel, i: int, before: PyTree, after: PyTree) -> np.ndarray:
        """x0_hat of a step of the probability-flow ODE between two latents: both are alpha x0 + sigma eps."""
        (a, b), (s, r) = levels.alpha[i : i + 2], levels.sigma[i : i + 2]
        return (s * self.programs.latents(after) - r * self.programs.latents(before)) / (s * b - r * a)

    def _check_texts(self) -> None:
        if self.parts.text_encoder is None or not self.tokenizers:
            raise ValueError(
                'This model has no text encoder with a tokenizer, so that it reads no texts. Where it was trained on '
                'texts, take that part from the model that they were encoded with.'
            )

    def _share(self, batch: int) -> int:
        """How many images are worked on at a time."""
        return self.programs.shares(min(batch, self.batch_size or batch))

    def map(self, function: Callable[..., PyTree], *batches: PyTree) -> PyTree:
        """function(parts, params, *batches) of arrays [B, ...] to such arrays, in the shares that are sampled."""
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


def seeds_from(seed: int | Sequence[int], batch: int) -> list[int]:
    """A seed for each image: seed, seed + 1, ..., or those that are given. Raises ValueError for another count."""
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(batch)]
    if len(seed) != batch:
        raise ValueError(f'{len(seed)} seeds for {batch} images: give one for each, or the first one alone.')
    return [int(each) for each in seed]
