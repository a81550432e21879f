"""An image that is to be edited: its latents behind the noisy ones.

Ref: Brooks et al. 2023, arXiv:2211.09800, section 3.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat: the posterior's mean, not scaled as the noisy latents are."""

    drop_rate: float = 0.0
    batch: ClassVar = (('source',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'source' [B, H, W, 3], uint8 or in [-1, 1]."""
        return Cond(concat=unless(drop, _latents(networks, batch['source'])))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'source' [B, H, W, 3], uint8 or in [-1, 1]."""
        return pair(self.drop_rate, concat=_latents(networks, given['source']))


def _latents(networks: Networks, image: Array) -> Array:
    return networks.latents(image) / networks.scaling_factor
