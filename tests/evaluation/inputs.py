"""Inputs of the recorded references, made again from their seeds; fixtures/README.md says how they were recorded."""

import numpy as np

SIZES = (
    (32, 32),
    (17, 23),
    (64, 64),
    (1, 5),
    (299, 299),
    (301, 200),
    (512, 384),
    (96, 1000),
)  # height, width
COLUMNS = np.array([0, 1, 2, 7, 50, 100, 149, 150, 151, 200, 255, 296, 297, 298])  # of 299, that are compared


def features(count: int = 60, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of rows in float64, correlated, non-negative and of other means, as Inception's are."""
    random = np.random.RandomState(seed)
    mix = random.standard_normal((width, width)) / 3
    return tuple(np.abs(random.standard_normal((count + 7 * i, width)) @ mix + 0.3 * i) for i in range(2))


def logits() -> np.ndarray:
    return np.random.RandomState(1).standard_normal((103, 20)) * 2


def image(size: tuple[int, int]) -> np.ndarray:
    """uint8 [1, H, W, 3], smooth shapes under noise."""
    height, width = size
    random = np.random.RandomState(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = 128 + 90 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None] * np.array([1, -1, 0.5])
    return np.clip(waves + 25 * random.standard_normal((height, width, 3)), 0, 255).astype(np.uint8)[None]


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two images [2, 33, 40, 3] in [-1, 1]."""
    random = np.random.RandomState(2)
    x = random.uniform(-1, 1, (2, 33, 40, 3))
    return x, np.clip(x + 0.2 * random.standard_normal(x.shape), -1, 1)
