"""Facts of an image's making: the size it had, what was cropped away, the size it has; SDXL steers by them.

Ref: Podell et al. 2023, arXiv:2307.01952, section 2.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.models.layers import timestep_embedding
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Sinusoids of each number, as (the last part of) Cond.vector [B, count x width].

    count: 6 numbers in SDXL: the original height and width, the crop's top and left, the height and width now; 5 in
        its refiner, which has an aesthetic score in place of the last two.
    width: of a number's embedding.
    """

    drop_rate: float = 0.0
    count: int = 6
    width: int = 256
    batch: ClassVar = (('size',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('vector',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'size' [B, count] in pixels."""
        return Cond(vector=unless(drop, self._embedded(batch['size'])))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'size' [B, count], and 'negative_size' for what guidance leads away from (zeros or `size`)."""
        vector = self._embedded(given['size'])
        if 'negative_size' in given:
            return Cond(vector=self._embedded(given['negative_size'])), Cond(vector=vector)
        return pair(self.drop_rate, vector=vector)

    def _embedded(self, size: Array) -> Array:
        if size.shape[-1] != self.count:
            raise ValueError(f"'size' has {self.count} numbers for each image here; got {size.shape[-1]}.")
        return timestep_embedding(size.reshape(-1), self.width).reshape(len(size), -1)
