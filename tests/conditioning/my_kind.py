"""A kind of conditioning of one's own, beside the library: the mean colour of an image."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import to_float
from ldm_jax.types import Cond


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.vector [B, 3]."""

    drop_rate: float = 0.0
    batch: ClassVar = (('image',),)
    optional: ClassVar = ()
    given: ClassVar = (('colour',),)
    requires: ClassVar = ()

    def parts(self, networks):
        return ('vector',)

    def train(self, networks, batch, drop, keys):
        return Cond(vector=unless(drop, jnp.mean(to_float(batch['image']), axis=(1, 2))))

    def sample(self, networks, given):
        return pair(self.drop_rate, vector=given['colour'])
