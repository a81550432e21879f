"""Classes: one token to attend to, or a row of the network's own table.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1 and appendix D.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from ldm_jax import denoising
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.context by a part class_embedder, or else Cond.label.

    With a drop rate the last class of the table stands for none, and no example may have it.
    """

    drop_rate: float = 0.0
    batch: ClassVar = (('label',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('context',) if 'class_embedder' in networks.modules else ('label',)

    def num_classes(self, networks: Networks) -> int:
        """Classes of images; the one for none is not counted."""
        return _rows(networks) - (self.drop_rate > 0)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'label' [B] integers."""
        return _cond(networks, jnp.where(drop, _rows(networks) - 1, batch['label']))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'label' [B] integers."""
        label = given['label']
        null = jnp.full_like(label, _rows(networks) - 1) if self.drop_rate > 0 else label
        return _cond(networks, null), _cond(networks, label)


def _rows(networks: Networks) -> int:
    """How many classes there are, with the one for none."""
    if 'class_embedder' in networks.modules:
        return networks.modules['class_embedder'].num_classes
    return denoising.conditioned_on(networks.module('unet')).label


def _cond(networks: Networks, label: Array) -> Cond:
    if 'class_embedder' in networks.modules:
        return Cond(context=networks.apply('class_embedder', label))
    return Cond(label=label)
