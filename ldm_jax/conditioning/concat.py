"""Channels behind the latents', as the data bring them: maps made elsewhere, at the latents' size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat."""

    drop_rate: float = 0.0
    batch: ClassVar = (('concat',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'concat' [B, h, w, C]."""
        return Cond(concat=unless(drop, batch['concat']))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'concat' [B, h, w, C]."""
        return pair(self.drop_rate, concat=given['concat'])
