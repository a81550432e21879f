"""One vector for each image, as the data bring it: an embedding made elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.vector."""

    drop_rate: float = 0.0
    batch: ClassVar = (('vector',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('vector',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'vector' [B, D]."""
        return Cond(vector=unless(drop, batch['vector']))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'vector' [B, D]."""
        return pair(self.drop_rate, vector=given['vector'])
