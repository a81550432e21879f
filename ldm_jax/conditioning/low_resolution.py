"""The image made small, behind the latents, perhaps with noise whose level the network knows.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.4; noise: Ho et al. 2021, arXiv:2106.15282, section 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks, to_float
from ldm_jax.diffusion import noise
from ldm_jax.diffusion.process import add_noise
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat at the latents' size, and with a max_noise_level Cond.label.

    Where the small image has another size, as in a model of pixels, it is resized by bicubic interpolation.

    factor: by which sides shrink.
    max_noise_level: noise of the latents' schedule up to this time is added (350 in the x4 upscaler), and its time is
        the label; 0 adds none.
    """

    drop_rate: float = 0.0
    factor: int = 4
    max_noise_level: int = 0
    batch: ClassVar = (('image',),)
    optional: ClassVar = ('small',)
    given: ClassVar = (('image',),)
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat', 'label') if self.max_noise_level else ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'image' [B, H, W, C], large, and 'small' [B, h, w, C]; or that is made by bicubic interpolation.

        Raises ValueError for small images that are not factor times smaller.
        """
        b, h, w, channels = batch['image'].shape
        shape = b, h // self.factor, w // self.factor, channels
        if 'small' not in batch:
            small = jax.image.resize(to_float(batch['image']), shape, 'bicubic')
        elif batch['small'].shape == shape:
            small = to_float(batch['small'])
        else:
            raise ValueError(
                f"'small' is {list(batch['small'].shape)} beside an image {[b, h, w, channels]}; with factor "
                f'{self.factor} it must be {list(shape)}.'
            )
        if not self.max_noise_level:
            return Cond(concat=unless(drop, self._fitted(networks, small)))
        level_keys, noise_keys = noise.split(keys, 2)
        level = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.max_noise_level + 1))(level_keys)
        noisy = add_noise(small, noise.normal(noise_keys, small), networks.schedule.level(level))
        return Cond(concat=unless(drop, self._fitted(networks, noisy)), label=level)

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'image' [B, h, w, C], small; with a max_noise_level 'noise' like it and 'level' [B] integers."""
        image = to_float(given['image'])
        if not self.max_noise_level:
            return pair(self.drop_rate, concat=self._fitted(networks, image))
        if not given.keys() >= {'noise', 'level'}:
            raise ValueError(
                f"Conditioning on a noisy small image needs 'noise' and 'level' too; got {sorted(given)}."
            )
        level = given['level']
        noisy = add_noise(image, given['noise'], networks.schedule.level(level))
        concat = self._fitted(networks, noisy)
        return tuple(dataclasses.replace(cond, label=level) for cond in pair(self.drop_rate, concat=concat))

    def _fitted(self, networks: Networks, small: Array) -> Array:
        """Small images [B, h, w, C] at the size of the latents of what they are to become."""
        b, h, w, channels = small.shape
        size = tuple(side * self.factor // networks.downscale for side in (h, w))
        return small if size == (h, w) else jax.image.resize(small, (b, *size, channels), 'bicubic')
