"""What inpainting does with a mask [H, W, 1] in [0, 1], 1 where the image is made anew.

As in A1111's web UI: the mask is blurred; "only masked" works on a crop around it, at full size, and pastes the result
back; the masked part starts from one of four contents. Images are [H, W, 3] in [-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from ldm_jax.build import unknown
from ldm_jax.images import fit, resample, to_uint8

CONTENTS = ('fill', 'original', 'latent_noise', 'latent_nothing')
WEB_UI = {'latent noise': 'latent_noise', 'latent nothing': 'latent_nothing'}  # A1111's names for the same
FILL_LAYERS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # radius of the blur, times laid over
VISIBLE = 0.5 / 255  # what is less rounds to black in a file


class Region(NamedTuple):
    """A rectangle of pixels; bottom and right are just outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """This part of pixels [H, W, C], a view."""
        return pixels[self.top : self.bottom, self.left : self.right]


def blur(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask under a Gaussian of standard deviation `radius` pixels, cut off at 2.5 of it; 0 leaves it alone.

    Beyond its edges the mask is its mirror image. Raises ValueError for a negative radius.
    """
    if radius < 0:
        raise ValueError(f'Blur radius {radius} is negative.')
    reach = int(2.5 * radius + 0.5)
    if reach == 0:
        return mask
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode='reflect')
        length = mask.shape[axis]
        mask = sum(weight * padded.take(range(i, i + length), axis) for i, weight in enumerate(kernel))
    return np.clip(mask, 0, 1)


def masked_crop(mask: np.ndarray, padding: int, aspect: float) -> Region:
    """The part of an image that "only masked" works on: around the mask, with padding, in the shape of `aspect`.

    Args:
        padding: pixels around the mask, as far as there are any.
        aspect: width / height of the size to work at. The shorter side grows towards it, to both sides where the
            image allows, and no further than the image.

    Raises ValueError for an empty mask.
    """
    limits = mask.shape[:2]
    if not (mask >= VISIBLE).any():
        raise ValueError('The mask is empty: there is nothing to make anew. Paint what should change white.')
    spans = []
    for axis, limit in enumerate(limits):
        marked = np.flatnonzero((mask >= VISIBLE).any(axis=(1 - axis, 2)))
        spans.append((max(int(marked[0]) - padding, 0), min(int(marked[-1]) + 1 + padding, limit)))
    height, width = (high - low for low, high in spans)
    if width > height * aspect:
        spans[0] = _grown(*spans[0], int(width / aspect), limits[0])
    else:
        spans[1] = _grown(*spans[1], int(height * aspect), limits[1])
    (top, bottom), (left, right) = spans
    return Region(top, left, bottom, right)


def paste_back(
    original: np.ndarray, generated: np.ndarray, mask: np.ndarray, region: Region | None = None
) -> np.ndarray:
    """The original with the generated image where the mask is, so that all else keeps its very pixels.

    Args:
        generated: the whole image, or what was made of `region`, at any size: it is scaled and cropped, which
            takes off again what `fit(region.of(original), size, 'fill')` put around.
        mask: [H, W, 1] of the original, blurred as it was for sampling. For a whole image it counts double,
            at most 1: the seam then lies outside the blurred edge, in pixels that hardly changed.

    Raises ValueError for a mask of another size.
    """
    check_same_size(original, mask)
    if region is None:
        region = Region(0, 0, *original.shape[:2])
        mask = np.minimum(2 * mask, 1)
    pasted = np.array(original)
    weight = region.of(mask)
    part = fit(generated, region.size, 'crop')
    region.of(pasted)[...] = weight * part + (1 - weight) * region.of(original)
    return pasted


def masked_image(content: str, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image to encode: filled from around the mask for the content 'fill', else as it is.

    Raises ValueError for another content than CONTENTS, or a mask of another size.
    """
    content = content_named(content)
    check_same_size(image, mask)
    return fill(image, mask) if content == 'fill' else image


def masked_latents(content: str, latents: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The latents to start from: for 'latent_noise' noise where the mask is, for 'latent_nothing' 0, else as they are.

    Args:
        latents, noise: [..., h, w, Z], of numpy or JAX.
        mask: [h, w, 1] of `latent_mask`.

    Raises ValueError for another content than CONTENTS.
    """
    content = content_named(content)
    if content == 'latent_noise':
        return latents * (1 - mask) + noise * mask
    return latents * (1 - mask) if content == 'latent_nothing' else latents


def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with its masked part in the blurred colours of what surrounds it.

    The known part is blurred ever less and laid over the wider blurs, so that near colours cover far ones. Where
    nothing is known within reach it stays black.
    """
    known = 1 - mask
    colours = to_uint8(image) * known
    # Colours premultiplied by their opacity: a blur then weighs them by how much of them is known.
    layer = np.round(np.concatenate([colours, 255 * known], -1)).astype(np.uint8)
    canvas = np.zeros(layer.shape, np.float32)
    for radius, times in FILL_LAYERS:
        blurred = Image.frombytes('RGBa', layer.shape[1::-1], layer.tobytes()).filter(
            ImageFilter.GaussianBlur(radius)
        )
        over = np.frombuffer(blurred.tobytes(), np.uint8).reshape(layer.shape).astype(np.float32) / 255
        for _ in range(times):
            canvas = over + (1 - over[..., 3:]) * canvas
    filled = canvas[..., :3] / np.maximum(canvas[..., 3:], 1e-6)
    return np.where(mask == 0, image, np.clip(2 * filled - 1, -1, 1)).astype(np.float32)


def latent_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at the size (h, w) of the latents, of zeros and ones: [H, W, 1] -> [h, w, 1]."""
    return np.round(resample(mask, size, Image.Resampling.BICUBIC))


def nearest_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """Every factor-th pixel of the mask, 1 from 0.5 on: [H, W, 1] -> [h, w, 1], as inpainting models are trained."""
    return (mask[::factor, ::factor] >= 0.5).astype(np.float32)


def content_named(content: str) -> str:
    """The name among CONTENTS, from that or from the web UI's. Raises ValueError, with the known ones, for another."""
    name = WEB_UI.get(content, content)
    if name not in CONTENTS:
        raise unknown('masked content', content, [*CONTENTS, *WEB_UI])
    return name


def check_same_size(image: np.ndarray, mask: np.ndarray) -> None:
    """Raises ValueError unless an image [H, W, 3] and a mask [H, W, 1] have one size."""
    if mask.shape != (*image.shape[:2], 1):
        raise ValueError(
            f'The mask is {list(mask.shape)} and the image {list(image.shape)}: '
            'give a mask [H, W, 1] of the same height and width.'
        )


def _grown(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    """A span of that length around another, moved inside [0, limit]; as long as that allows."""
    low = max(min(low - (length - (high - low)) // 2, limit - length), 0)
    return low, min(low + length, limit)
