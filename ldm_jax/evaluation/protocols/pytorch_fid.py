"""pytorch-fid 0.3: torch's bilinear resize of pixels in [0, 1], scipy's square root."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax.evaluation import resizes


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Inception's pool3 features of 2 x - 1, x in [0, 1]: white is 1 here and 127 / 128 in the other protocols."""

    network: ClassVar[str] = 'inception'
    output: ClassVar[str] = 'pool3'
    root: ClassVar[str] = 'sqrtm'
    resize: ClassVar[str] = (
        'torch bilinear to 299 x 299 with half-pixel centres, no antialiasing, not rounded'
    )

    def prepare(self, images, size=None):
        """Images uint8 [B, H, W, 3] to the network's input [B, 299, 299, 3]."""
        return 2 * resizes.torch_bilinear(images.astype(np.float32) / 255) - 1
