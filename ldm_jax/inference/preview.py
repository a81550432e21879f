"""Small images of latents while they are being made: what a denoiser takes for clean, without the first stage.

Either one multiplication for each pixel (`Linear`), at the size of the latents, or a tiny autoencoder's decoder
(models.taesd), at the size of the image: `tiny`. Both are for the latents that the diffusion model has, scaled.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct

from ldm_jax.models import taesd
from ldm_jax.types import Array, PyTree

Preview = Callable[[Array], Array]  # latents [B, h, w, Z] -> images [B, H, W, 3] in [-1, 1]


@struct.dataclass
class Linear:
    """Colour as a linear function of one latent: a Preview of the latents' own size."""

    factors: Array  # [Z, 3]
    bias: Array  # [3]

    def __call__(self, latents: Array) -> Array:
        return jnp.clip(latents @ self.factors + self.bias, -1, 1)


# By (channels, scale) of the latents: Stable Diffusion 1 and 2, SDXL, the x4 upscaler. Regressions published with
# ComfyUI (comfy/latent_formats.py, latent_rgb_factors), for scaled latents and images in [-1, 1].
FACTORS: dict[tuple[int, float], tuple[list[list[float]], list[float]]] = {
    (4, 0.18215): (
        [
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ],
        [0.0, 0.0, 0.0],
    ),
    (4, 0.13025): (
        [
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ],
        [0.1084, -0.0175, -0.0011],
    ),
    (4, 0.08333): (
        [
            [-0.2340, -0.3863, -0.3257],
            [0.0994, 0.0885, -0.0908],
            [-0.2833, -0.2349, -0.3741],
            [0.2523, -0.0055, -0.1651],
        ],
        [0.0, 0.0, 0.0],
    ),
}


def linear(channels: int, scaling_factor: float) -> Linear:
    """The published colours of a latent space, which its channels and its scale tell.

    Raises ValueError for a space without any; `fit` makes them.
    """
    for (width, scale), (factors, bias) in FACTORS.items():
        if width == channels and abs(scale - scaling_factor) < 1e-3 * scale:
            return Linear(jnp.asarray(factors), jnp.asarray(bias))
    raise ValueError(
        f'No colours are known of latents with {channels} channels and scale {scaling_factor}; have '
        f'(channels, scale) {list(FACTORS)}. Fit them to images and their latents, or use a tiny autoencoder.'
    )


def fit(latents: Array, images: Array) -> Linear:
    """The colours that are nearest, by least squares, to images reduced to the size of their latents.

    Args:
        latents: [B, h, w, Z] of the images, scaled.
        images: [B, f h, f w, 3] in [-1, 1].

    Raises ValueError where an image's sides are not a whole multiple of its latents', or there are fewer latents
    than unknowns.
    """
    b, h, w, channels = latents.shape
    factor = images.shape[1] // h
    if images.shape != (b, factor * h, factor * w, 3):
        raise ValueError(
            f'Images must be [{b}, f {h}, f {w}, 3] for latents {latents.shape}; got {images.shape}.'
        )
    if b * h * w <= channels:
        raise ValueError(f'{b * h * w} latents do not determine {channels + 1} unknowns; give more images.')
    small = images.reshape(b, h, factor, w, factor, 3).mean((2, 4))
    known = jnp.concatenate([latents, jnp.ones((b, h, w, 1), latents.dtype)], -1).reshape(-1, channels + 1)
    solution = jnp.linalg.lstsq(known, small.reshape(-1, 3))[0]
    return Linear(solution[:-1], solution[-1])


def tiny(model: taesd.Model, params: PyTree) -> Preview:
    """A Preview of the image's size by a tiny autoencoder of the same latent space."""

    def preview(latents):
        return jnp.clip(model.apply({'params': params}, latents, method='decode'), -1, 1)

    return preview
