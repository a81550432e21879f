"""What happens to photographs before they are small: blur, noise, JPEG and resizing, each by draws of a generator.

Images are float32 [H, W, 3] in [0, 1]. Every function draws in the order of the authors' code, so that the same draws
make the same image. Ref: Zhang et al. 2021, arXiv:2103.14006 (BSRGAN), section 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import linalg, ndimage

FILTERS = (1, 2, 3)  # OpenCV's numbers of linear, cubic and area


def resized(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An image at (height, width) by one of FILTERS, of which area alone antialiases.

    Raises ImportError without OpenCV.
    """
    chosen = FILTERS[int(rng.integers(len(FILTERS)))]
    return np.clip(opencv().resize(image, size[::-1], interpolation=chosen), 0, 1)


def halved(image: np.ndarray) -> np.ndarray:
    """An image at half of its sides by MATLAB's imresize: Keys' cubic with a = -0.5, twice as wide, edges mirrored."""
    distance = np.abs(np.arange(8) - 3.5) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, far)
    weights /= weights.sum()
    for axis in (0, 1):
        image = ndimage.correlate1d(image, weights, axis, mode='reflect', origin=-1)
        image = image[::2] if axis == 0 else image[:, ::2]
    return np.clip(image, 0, 1)


def every_nth(image: np.ndarray, factor: int, rng: np.random.Generator) -> np.ndarray:
    """Every factor-th pixel of an image that is blurred for it, by a Gaussian shifted to the middle between pixels."""
    kernel = gaussian(25, rng.uniform(0.1, 0.6 * factor))
    places = np.clip(np.arange(25) + (factor - 1) / 2, 0, 24)
    for axis in (0, 1):
        low = np.minimum(places.astype(int), 23)
        shares = (places - low).reshape(-1, 1) if axis == 0 else places - low
        kernel = np.take(kernel, low, axis) * (1 - shares) + np.take(kernel, low + 1, axis) * shares
    return np.clip(convolved(image, kernel / kernel.sum())[::factor, ::factor], 0, 1)


def blurred(
    image: np.ndarray, factor: int, rng: np.random.Generator, *, strength: float, sizes: tuple[range, range]
) -> np.ndarray:
    """An image blurred by a Gaussian, half of the time with an axis longer than the other at any angle.

    Args:
        factor: by which the image will be made smaller; the larger, the wider may the blur be.
        strength: factor on the widths; 1 in BSRGAN.
        sizes: of the kernel's side, where axes differ and where they do not.
    """
    longest, widest = strength * (4.0 + factor), strength * (2.0 + 0.2 * factor)
    if rng.random() < 0.5:
        first, second = longest * rng.random(), longest * rng.random()
        kernel = oblique_gaussian(_of(sizes[0], rng), rng.random() * np.pi, first, second)
    else:
        kernel = gaussian(_of(sizes[1], rng), widest * rng.random())
    return convolved(image, kernel)


def noised(image: np.ndarray, rng: np.random.Generator, *, levels: tuple[int, int]) -> np.ndarray:
    """An image with Gaussian noise: of each channel for itself, the same of all, or correlated between them.

    levels: least and largest deviation, in 1/255. Correlated noise always has the largest.
    """
    deviation = int(rng.integers(levels[0], levels[1] + 1)) / 255
    kind = rng.random()
    if kind > 0.6:
        noise = rng.normal(0, deviation, image.shape)
    elif kind < 0.4:
        noise = rng.normal(0, deviation, (*image.shape[:2], 1))
    else:
        diagonal = np.diag(rng.random(3))
        basis = linalg.orth(rng.random((3, 3)))
        covariance = np.abs((levels[1] / 255) ** 2 * (basis.T @ diagonal @ basis))
        noise = rng.multivariate_normal(np.zeros(3), covariance, image.shape[:2])
    return np.clip(image + noise.astype(np.float32), 0, 1)


def compressed(image: np.ndarray, rng: np.random.Generator, *, qualities: tuple[int, int]) -> np.ndarray:
    """An image after JPEG, whose quality is drawn from least to largest. Raises ImportError without OpenCV."""
    cv2 = opencv()
    quality = int(rng.integers(qualities[0], qualities[1] + 1))
    data = cv2.imencode('.jpg', as_uint8(image)[..., ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), quality])[1]
    return as_float(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def gaussian(size: int, deviation: float) -> np.ndarray:
    """The kernel [size, size] of a round Gaussian, of sum 1."""
    squares = (np.arange(size) - (size - 1) / 2) ** 2
    kernel = np.exp(-(squares[:, None] + squares) / max(2 * deviation**2, 1e-300))
    kernel[kernel < np.finfo(float).eps * kernel.max()] = 0
    return kernel / kernel.sum() if kernel.sum() else kernel


def oblique_gaussian(size: int, angle: float, first: float, second: float) -> np.ndarray:
    """The kernel [size, size] of a Gaussian of sum 1, with these variances along its axes, turned by an angle."""
    cos, sin = math.cos(angle), math.sin(angle)
    axes = np.array([[cos, sin], [sin, -cos]])
    precision = axes @ np.diag([1 / first, 1 / second]) @ axes
    place = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(place, place)
    exponent = precision[0, 0] * x**2 + 2 * precision[0, 1] * x * y + precision[1, 1] * y**2
    kernel = np.exp(-(exponent - exponent.min()) / 2)
    return kernel / kernel.sum()


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each channel convolved by a kernel, the image mirrored at its edges."""
    return ndimage.convolve(image, kernel[..., None], mode='mirror')


def as_float(image: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return np.float32(image / 255.0)


def as_uint8(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8, rounded."""
    return np.uint8((image.clip(0, 1) * 255.0).round())


def opencv() -> Any:
    """The module cv2. Raises ImportError, with the command that installs it."""
    try:
        import cv2
    except ImportError:
        raise ImportError(
            "Degradations need OpenCV: pip install opencv-python-headless, or 'ldm_jax[train]'."
        ) from None
    return cv2


def _of(sizes: range, rng: np.random.Generator) -> int:
    return sizes[int(rng.integers(len(sizes)))]
