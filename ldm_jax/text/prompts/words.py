"""Words that a text encoder is taught: textual inversion. A word is one vector or several in place of a token's.

Ref: Gal et al. 2022, arXiv:2208.01618.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Word:
    """A learned word.

    Attributes:
        vectors: part of the model ('text_encoder', 'text_encoder_2') -> float32 [n, D].
        hash: SHA-256 of its file, as hexadecimal digits; '' for none.
    """

    vectors: Mapping[str, np.ndarray]
    hash: str = ''

    @property
    def count(self) -> int:
        """How many tokens it stands for."""
        return len(next(iter(self.vectors.values())))
