"""Images to be counted, and what metrics make of them; each network sees them once, however many metrics ask."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax import build
from ldm_jax.evaluation.networks import Networks


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Images by number, with the references and texts that belong to them.

    Attributes:
        images: uint8 [B, H, W, 3], as they are after quantisation.
        numbers: [B], different in all batches of a set.
        references: uint8 [B, H, W, 3], for metrics against pairs.
        texts: [B], for metrics against texts.

    Raises ValueError for images of another type or shape.
    """

    images: np.ndarray
    numbers: np.ndarray
    networks: Networks
    references: np.ndarray | None = None
    texts: Sequence[str] | None = None

    def __post_init__(self):
        for images in (self.images, self.references):
            if images is None:
                continue
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
                raise ValueError(
                    f'Images are uint8 [B, H, W, 3]; got {images.dtype} {images.shape}. '
                    'images.to_uint8 makes them of floats in [-1, 1].'
                )

    def features(self, protocol: str, output: str | None = None) -> np.ndarray:
        """Rows [B, D] of a protocol's features, or of another output of its network."""
        made = build.build('evaluation.protocols', dict(name=protocol))
        found = self._outputs(made)
        output = made.output if output is None else output
        rows = found[output] if isinstance(found, dict) else getattr(found, output)
        return np.asarray(rows)

    def _outputs(self, protocol: Any) -> Any:
        network = protocol.network
        key = network, protocol.resize  # which says how its input is made
        if key not in self._found:
            size = getattr(self.networks.modules[network], 'image_size', None)
            prepared = protocol.prepare(self.images, *([] if size is None else [size]))
            self._found[key] = self.networks.run(network, prepared)
        return self._found[key]

    @functools.cached_property
    def _found(self) -> dict:
        return {}
