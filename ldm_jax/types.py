"""The values and the interfaces that every layer of the library shares.

Everything is stated in x = alpha x0 + sigma eps, so variance-preserving and variance-exploding
schedules, EDM, flow matching and zero-terminal-SNR schedules share every sampler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import struct

Array = jax.Array
PyTree = Any


@struct.dataclass
class NoiseLevel:
    """A point of a noise schedule; its three leaves share one shape: [], [B] or [S]."""

    t: Array  # schedule time, the network's time input (SD: 0 .. 999); NaN: a sampler's own, see on_schedule
    alpha: Array  # signal scale, 1 at clean data
    sigma: Array  # noise scale, 0 at clean data


@struct.dataclass
class Cond:
    """What a network is conditioned on beside x and t; each part is optional, the network says which it takes.

    Text, inpainting, depth, class and size conditioning differ in these data, not in code.
    """

    context: Array | None = None  # [B, L, D] tokens to attend to: text, class token, image embedding
    concat: Array | None = (
        None  # [B, h, w, C] channels put behind those of x: mask, depth, low-resolution image
    )
    vector: Array | None = None  # [B, D] one embedding for the image: SDXL sizes, unCLIP image embedding
    label: Array | None = None  # [B] integer class: noise level of the x4 upscaler
    guidance: Array | None = None  # [B] scale of guidance, where a network has learned what it does (LCM)
    perturbed: Array | None = None  # [B] bool: whose self-attention is the identity, where the network says
    context_mask: Array | None = (
        None  # [B, L] bool: the tokens that are there, by default all; see masks_context
    )
    strengths: Array | None = (
        None  # [B, K] of the network's adapters (adapted.py), or [B, K, S] for each step
    )


@dataclasses.dataclass(frozen=True)
class CondWidths:
    """The parts of Cond that a network takes, by their widths; None: it takes no such part."""

    context: int | None = None  # D of [B, L, D]
    concat: int | None = None  # C of [B, h, w, C]
    vector: int | None = None  # D of [B, D]
    label: int | None = None  # how many classes there are, of [B]
    guidance: int | None = None  # sinusoids of the scale [B]


class DenoisingNetwork(Protocol):
    """The network of a diffusion model, its part 'unet': a flax.linen.Module, any architecture.

    Only out_channels and the call have no default (denoising.py has the others, and the check of all of it). Parameters
    may carry logical axis names (models/layers.py), by which a mesh cuts them; those without are copied.
    """

    out_channels: int  # of x and of the result
    conditioned_on: CondWidths  # default: nothing
    downscale: int  # sides of x must be multiples of it; default 1
    masks_context: bool  # whether it leaves out tokens that Cond.context_mask leaves out; default False

    def __call__(
        self, x: Array, t: Array, cond: Cond
    ) -> Array: ...  # x [B, h, w, out_channels], t [B] float32 -> like x

    def inputs(
        self, batch: int = 1, size: int | None = None
    ) -> tuple: ...  # shapes (x, t, cond) of the call; default: by the above


Denoiser = Callable[[Array, NoiseLevel], Array]  # (x, level) -> x0_hat; params and cond are bound


class Schedule(Protocol):
    """How signal and noise scales depend on time, 0 .. num_train_steps - 1."""

    num_train_steps: int

    def level(self, t: Array) -> NoiseLevel: ...

    def time(self, log_snr: Array) -> Array: ...  # inverse of level; log_snr = log(alpha^2 / sigma^2)


class Tokenizer(Protocol):
    """Texts to rows of ids."""

    context_length: int  # ids in a row, those that start, end and fill it included

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray: ...  # int32 [B, context_length]

    def encode(
        self, text: str
    ) -> list[int]: ...  # however long, without those that start, end and fill a row

    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...], int]: ...  # ids that start, end and fill a row


class Sampler(Protocol):
    """One step from a noise level to a lower one; knows neither network nor schedule nor loop.

    A level that it makes itself, between or beyond those of the table, has t = NaN and any scale, for which x is
    scaled alike: only a schedule knows the time of a signal-to-noise ratio (diffusion.denoiser.on_schedule).
    It may call the denoiser several times, of which its program has one copy, but then not inside lax.cond or a loop:
    diffusion.evaluations.again evaluates under a traced condition.
    A flax.struct.dataclass: real knobs (eta, churn) are leaves, so that a compiled program takes any value of
    them; what decides the program (order, variant) is a field with pytree_node=False. One that walks other levels
    than a grid's also has `table(schedule, grid, num_steps)`, which gives them.
    """

    order: int  # of convergence on a smooth ODE

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree: ...  # the sampler's memory

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]: ...  # levels with leaves []; keys [B], one an image and new at each step


class Solver(Protocol):
    """A sampler that makes all its levels itself, between the first and the last of a table; else like Sampler."""

    order: int

    def solve(
        self, denoise: Denoiser, x: Array, levels: NoiseLevel, num_steps: Array, keys: Array
    ) -> Array: ...  # x at levels[num_steps]


class Metric(Protocol):
    """A number of a set of images: rows of each image in, numbers out (evaluation/README.md).

    A row is what the metric keeps of an image, [D]: a network's features, or the score of a pair. Merging states in
    any order, and adding rows in any order, changes a result by rounding of float64 at most. `against` says what is
    needed beside the images: 'set', the state of reference images in `result`; 'pair' or 'text', the image's reference
    or its text in `rows`; 'none', nothing.
    """

    against: str

    @property
    def networks(
        self,
    ) -> tuple[str, ...]: ...  # the parts (evaluation/networks.py) that `rows` asks of a batch

    def rows(self, batch: Any) -> np.ndarray: ...  # [B, D] of an evaluation.batch.Batch

    def init(self) -> PyTree: ...  # the state of no images

    def update(
        self, state: PyTree, rows: np.ndarray, numbers: np.ndarray
    ) -> PyTree: ...  # rows [B, D] of the images with these numbers [B], each of which counts once

    def merge(self, a: PyTree, b: PyTree) -> PyTree: ...  # the state of both sets

    def result(self, state: PyTree, reference: PyTree | None = None) -> dict[str, float]: ...  # by name
