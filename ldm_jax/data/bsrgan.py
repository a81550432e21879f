"""Small images as a camera and the web would have made them: BSRGAN's degradations in a random order.

Ref: Zhang et al. 2021, arXiv:2103.14006; the two settings of CompVis/latent-diffusion, ldm/modules/image_degradation.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.build import unknown
from ldm_jax.data import degradations


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is done to an image.

    Attributes:
        blurs: how many there are.
        strength, sizes: of a blur, see degradations.blurred.
        resize_rate: share of the images that are made smaller by resizing at first, not by leaving out pixels.
        levels: of the noise, in 1/255.
        qualities: of JPEG.
    """

    blurs: int
    strength: float
    sizes: tuple[range, range]
    resize_rate: float
    levels: tuple[int, int]
    qualities: tuple[int, int]


SETTINGS = {
    'bsrgan': Settings(2, 1.0, (range(7, 27, 2), range(7, 27, 2)), 0.75, (2, 25), (30, 95)),
    'bsrgan_light': Settings(1, 0.25, (range(5, 15), range(5, 8)), 0.8, (1, 2), (80, 95)),
}
BLURS, SMALLER, SMALL, NOISE, JPEG, NOTHING = (0, 1), 2, 3, 4, 5, 6  # nothing: the original's camera model
JPEG_RATE = 0.9
HALVING_RATE = 0.25  # of the images that are to be four times smaller


def settings(name: str) -> Settings:
    """The settings of this name. Raises ValueError for another one."""
    if name not in SETTINGS:
        raise unknown('degradation', name, sorted(SETTINGS))
    return SETTINGS[name]


def degraded(image: np.ndarray, factor: int, how: Settings, rng: np.random.Generator) -> np.ndarray:
    """A small image uint8 [H // factor, W // factor, 3] of a large one uint8 [H, W, 3].

    Raises ImportError without OpenCV.
    """
    x = degradations.as_float(image[: len(image) - len(image) % factor])
    x = x[:, : x.shape[1] - x.shape[1] % factor]
    left = factor  # by which it is still to become smaller
    if factor == 4 and rng.random() < HALVING_RATE:
        left = 2
        if rng.random() < 0.5:
            x = degradations.resized(x, (len(x) // 2, x.shape[1] // 2), rng)
        else:
            x = degradations.halved(x)
    for step in _order(rng):
        if step in BLURS[: how.blurs]:
            x = degradations.blurred(x, left, rng, strength=how.strength, sizes=how.sizes)
        elif step == SMALLER:
            whole = x.shape[:2]
            if rng.random() < how.resize_rate:
                share = 1 / rng.uniform(1, 2 * left)
                x = degradations.resized(x, (int(share * whole[0]), int(share * whole[1])), rng)
            else:
                x = degradations.every_nth(x, left, rng)
        elif step == SMALL:
            x = degradations.resized(x, (whole[0] // left, whole[1] // left), rng)
        elif step == NOISE:
            x = degradations.noised(x, rng, levels=how.levels)
        elif step == JPEG and rng.random() < JPEG_RATE:
            x = degradations.compressed(x, rng, qualities=how.qualities)
    return degradations.as_uint8(degradations.compressed(x, rng, qualities=how.qualities))


def _order(rng: np.random.Generator) -> list[int]:
    """The steps in a random order, but SMALL never before SMALLER."""
    order = rng.permutation(7).tolist()
    smaller, small = order.index(SMALLER), order.index(SMALL)
    if smaller > small:
        order[smaller], order[small] = SMALL, SMALLER
    return order
