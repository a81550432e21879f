"""A map of classes behind the latents, through a learned rescaler: semantic synthesis.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat, by a part rescaler."""

    drop_rate: float = 0.0
    batch: ClassVar = (('map',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ('rescaler',)

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'map' [B, H, W] integers."""
        return Cond(concat=unless(drop, _channels(networks, batch['map'])))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'map' [B, H, W] integers."""
        return pair(self.drop_rate, concat=_channels(networks, given['map']))


def _channels(networks: Networks, labels: Array) -> Array:
    maps = jax.nn.one_hot(labels, networks.module('rescaler').in_channels)
    return networks.apply('rescaler', maps)
