"""torch-fidelity 0.4: TensorFlow 1's bilinear resize of uint8, which is that of the original graph."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax.evaluation import resizes


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Inception's pool3 features; the root by eigenvalues of the product of the covariances."""

    network: ClassVar[str] = 'inception'
    output: ClassVar[str] = 'pool3'
    root: ClassVar[str] = 'eigenvalues'
    resize: ClassVar[str] = 'TensorFlow 1 bilinear to 299 x 299, no antialiasing, not rounded'

    def prepare(self, images, size=None):
        """Images uint8 [B, H, W, 3] to the network's input [B, 299, 299, 3]."""
        return (resizes.tensorflow_bilinear(images) - 128) / 128
