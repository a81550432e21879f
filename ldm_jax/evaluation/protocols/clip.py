"""Embeddings of a CLIP vision tower: of a public one, or of a small one trained with this package.

FD of them is never called FID. Even where the tower is ViT-B/32 it is not clean-fid's CLIP-FID, whose resize is PIL's
bicubic; this one's is Lanczos'.
Ref: Kynkaanniemi et al. 2023, arXiv:2203.06026.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax.images import fit
from ldm_jax.models.clip_vision import MEAN, STD


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The tower's projected embeddings, not normalised."""

    network: ClassVar[str] = 'image_encoder'
    output: ClassVar[str] = 'projected'
    root: ClassVar[str] = 'symmetric'
    resize: ClassVar[str] = "Lanczos to the tower's size, antialiased, middle square, not rounded"

    def prepare(self, images, size=224):
        """Images uint8 [B, H, W, 3] to the tower's input [B, size, size, 3]."""
        fitted = np.stack([fit(image.astype(np.float32), (size, size)) for image in images])
        return (fitted / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
