"""OpenAI's evaluator of guided-diffusion: the original graph's own resize, scipy's square root."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax.evaluation import resizes


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Inception's pool3 features, or those of mixed_6/conv for sFID, against statistics of a whole training set."""

    network: ClassVar[str] = 'inception'
    output: ClassVar[str] = 'pool3'
    root: ClassVar[str] = 'sqrtm'
    resize: ClassVar[str] = 'TensorFlow 1 bilinear to 299 x 299, no antialiasing, not rounded'

    def prepare(self, images, size=None):
        """Images uint8 [B, H, W, 3] to the network's input [B, 299, 299, 3]."""
        return (resizes.tensorflow_bilinear(images) - 128) / 128
