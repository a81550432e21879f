"""Images and texts encoded before training: latents and text embeddings by a trained model's networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from ldm_jax.build import build
from ldm_jax.conditioning.networks import TEXT_ENCODERS, Networks, encode_image, encode_text
from ldm_jax.types import Array, PyTree, Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A first stage and text encoders; either may be absent. Parameters are an argument, and the caller jits.

    Attributes:
        modules: part -> network: 'first_stage', 'text_encoder', 'text_encoder_2'.
        tokenizers: by the name of their tokens: 'tokens', 'tokens_2'.
    """

    modules: Mapping[str, nn.Module]
    tokenizers: Mapping[str, Tokenizer]

    @property
    def parts(self) -> list[str]:
        """The parts whose parameters are needed."""
        return list(self.modules)

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts to ids [B, L] by the name of the tokens."""
        return {name: tokenizer(list(map(str, texts))) for name, tokenizer in self.tokenizers.items()}

    def __call__(
        self, params: Mapping[str, PyTree], image: Array | None, tokens: Mapping[str, Array]
    ) -> dict[str, Array]:
        """'moments' or 'latents' of images, 'context' and 'pooled' of texts, as networks.py describes them.

        Args:
            params: of `parts`.
            image: [B, H, W, 3] in [-1, 1], or None; unused without a first stage.
            tokens: of `tokens`; unused without a text encoder.
        """
        networks = Networks(self.modules, params)
        has_image = 'first_stage' in self.modules and image is not None
        found = encode_image(networks, image) if has_image else {}
        return found | encode_text(networks, tokens) if self.tokenizers else found


def from_settings(settings: Mapping[str, Any], parts: Sequence[str], dtype: str = 'float32') -> Encoder:
    """The encoder of a model directory's settings, with those of its parts that are named; dtype is for compute.

    Raises ValueError for parts that the model lacks, or that encode neither images nor texts.
    """
    have = [part for part in settings['models'] if part == 'first_stage' or part in TEXT_ENCODERS]
    if not parts or set(parts) - set(have):
        raise ValueError(f'Parts to encode with must be among {have} of this model; got {list(parts)}.')
    taken = [part for part in have if part in parts]
    modules = {part: build('models', dict(settings['models'][part], dtype=dtype)) for part in taken}
    tokenizers = {
        TEXT_ENCODERS[part]: build('text', settings['tokenizer' + part.removeprefix('text_encoder')])
        for part in taken
        if part in TEXT_ENCODERS
    }
    return Encoder(modules, tokenizers)
