"""Starting noise as other programs draw it, so that their seeds make their images here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.build import function
from ldm_jax.diffusion import noise as image_noise
from ldm_jax.diffusion.philox import CudaGenerator
from ldm_jax.diffusion.torch_noise import CpuGenerator

GENERATORS = {
    'torch_cpu': CpuGenerator,  # the "CPU" of A1111's web UI, and diffusers' with a CPU generator an image
    'torch_cuda': CudaGenerator,  # its "NV", and nearly its "GPU"
}
SOURCES = ('jax', *GENERATORS)


class Generator(Protocol):
    """Draws of one seed, made as Generator(seed); each call is the next draw."""

    def randn(self, shape: Sequence[int]) -> np.ndarray: ...  # float32


def named(source: str) -> Callable[[int], Generator] | None:
    """The generator of a name of SOURCES, or of a dotted one; None for 'jax', which draws from keys.

    Raises ValueError for an unknown source.
    """
    known: dict[str, Any] = {**GENERATORS, 'jax': None}  # so that the error for an unknown one lists all
    return None if source == 'jax' else function('noise source', known, source)


def noise(source: str, seeds: Sequence[int], shape: Sequence[int], draw: int = 0) -> np.ndarray:
    """Standard normal noise float32 [B, *shape], image i from seeds[i] alone.

    Args:
        source: 'jax' is the library's own; 'torch_cpu' and 'torch_cuda' give what torch draws first from a
            generator of that seed, made as (C, h, w) and turned here.
        seeds: [B] integers. 'jax' and 'torch_cpu' take their low 32 bits, as torch does.
        shape: of one image, channels last: (h, w, C).
        draw: 0 is the first noise of a seed, 1 the second, each independent of the others. Where diffusers draws
            one image's noises from one generator, these are they, as long as all have this shape.

    Raises ValueError for an unknown source, or for a seed that torch does not take.
    """
    return noises(source, seeds, [shape] * (draw + 1))[draw]


def noises(source: str, seeds: Sequence[int], shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """As `noise`, one array [B, *shape] for each shape: each seed's draws one after the other.

    Where diffusers draws the noises of one image from one generator, these are they.
    """
    generator = named(source)
    if generator is None:
        with jax.ensure_compile_time_eval():  # numbers, where a program is traced around it too
            return _from_keys(seeds, shapes)
    generators = [generator(seed) for seed in seeds]
    return [
        np.moveaxis(np.stack([g.randn((*shape[-1:], *shape[:-1])) for g in generators]), 1, -1)
        for shape in shapes
    ]


def _from_keys(seeds: Sequence[int], shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    keys, _ = image_noise.streams(seeds)
    found = []
    for draw, shape in enumerate(shapes):
        like = jax.ShapeDtypeStruct((len(seeds), *shape), jnp.float32)
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, draw) if draw else keys
        found.append(np.asarray(image_noise.normal(own, like)))
    return found
