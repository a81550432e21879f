"""clean-fid 0.1.35, mode 'clean': Pillow's antialiased bicubic resize in float32, scipy's square root."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax.evaluation import resizes


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Inception's pool3 features."""

    network: ClassVar[str] = 'inception'
    output: ClassVar[str] = 'pool3'
    root: ClassVar[str] = 'sqrtm'
    resize: ClassVar[str] = (
        'Pillow bicubic to 299 x 299, antialiased, in float32, clipped to 0 .. 255, not rounded'
    )

    def prepare(self, images, size=None):
        """Images uint8 [B, H, W, 3] to the network's input [B, 299, 299, 3]."""
        return (resizes.pillow_bicubic(images) - 128) / 128
