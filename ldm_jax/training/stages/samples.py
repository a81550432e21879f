"""Images from noise while a diffusion model trains: always from the same noise, under the same conditioning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.build import unknown
from ldm_jax.diffusion import grids, guidance, noise, sampling
from ldm_jax.diffusion.denoiser import Network, denoiser
from ldm_jax.diffusion.parameterization import Parameterization
from ldm_jax.samplers import ddim
from ldm_jax.types import Array, Cond, PyTree, Schedule, Tokenizer


@dataclasses.dataclass(frozen=True)
class Samples:
    """Settings of the sampling: `stage.samples` of a config.

    count: images; 0 for none.
    num_steps: of DDIM.
    guidance_scale: classifier-free, where some conditioning is dropped in training; 1 is no guidance.
    prompts: texts that are used in turn; those of the examples by default.

    Raises ValueError for values out of range.
    """

    count: int = 8
    num_steps: int = 20
    guidance_scale: float = 3.0
    prompts: tuple[str, ...] = ()

    def __post_init__(self):
        if self.count < 0 or self.num_steps < 1:
            raise ValueError(
                f'samples.count must be at least 0 and num_steps at least 1; got {self.count}, {self.num_steps}.'
            )

    def conditions(self, batch: PyTree, tokenizers: Mapping[str, Tokenizer]) -> PyTree:
        """A batch of `count` examples: those of `batch` in turn, with the prompts for their texts.

        Args:
            tokenizers: by the batch's key of their tokens.
        """
        turn = jnp.arange(self.count)
        batch = jax.tree.map(lambda a: jnp.asarray(a)[turn % len(a)], batch)
        if not self.prompts:
            return batch
        kept = {key: a for key, a in batch.items() if key not in ('context', 'pooled')}
        prompts = [self.prompts[i % len(self.prompts)] for i in range(self.count)]
        return kept | {key: jnp.asarray(tokenizer(prompts)) for key, tokenizer in tokenizers.items()}

    def latents(
        self,
        network: Network,
        parameterization: Parameterization,
        schedule: Schedule,
        cond: Callable[[bool], Cond],
        shape: tuple[int, ...],
        key: Array,
        guided: bool,
    ) -> Array:
        """Latents of a shape [count, h, w, Z].

        Args:
            cond: whether everything that can be is dropped -> the network's conditioning.
            guided: whether something is ever dropped.
        """
        start, walk = jax.random.split(key)
        levels = grids.named('trailing')(schedule, self.num_steps)
        x = levels.sigma[0] * noise.normal(jax.random.split(start, shape[0]), jnp.zeros(shape))
        if guided and self.guidance_scale != 1:
            both = denoiser(network, parameterization, guidance.pair(cond(True), cond(False)))
            denoise = guidance.classifier_free(both, self.guidance_scale)
        else:
            denoise = denoiser(network, parameterization, cond(False))
        return sampling.sample(ddim.Sampler(), denoise, x, levels, jax.random.split(walk, shape[0]))


def named(fields: Mapping[str, Any]) -> Samples:
    """The Samples of a config's fields. Raises ValueError for an unknown one."""
    have = [field.name for field in dataclasses.fields(Samples)]
    for name in fields:
        if name not in have:
            raise unknown('field of samples', name, have)
    return Samples(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})
