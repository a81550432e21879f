"""Images and captions to what a diffusion model learns from: latents and text embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.build import build
from ldm_jax.types import Array, PyTree, Tokenizer


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A first stage and text encoders; either may be absent. Parameters are an argument, and the caller jits.

    Attributes:
        first_stage: or None.
        text_encoders: (part, network, tokenizer) of each, in the order in which contexts are joined.
    """

    first_stage: nn.Module | None
    text_encoders: tuple[tuple[str, nn.Module, Tokenizer], ...]

    @property
    def parts(self) -> list[str]:
        """The parts whose parameters are needed."""
        return ['first_stage'] * (self.first_stage is not None) + [part for part, _, _ in self.text_encoders]

    def tokens(self, texts: Sequence[str]) -> dict[str, Array]:
        """Texts to ids [B, L] by part."""
        return {part: tokenizer(list(map(str, texts))) for part, _, tokenizer in self.text_encoders}

    def __call__(
        self, params: Mapping[str, PyTree], image: Array | None, tokens: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What of these there is: moments [B, h, w, 2 Z] or latents [B, h, w, Z], context [B, L, D], pooled [B, P].

        Args:
            params: of `parts`.
            image: [B, H, W, 3] in [-1, 1]; unused without a first stage.
            tokens: of `tokens`.

        moments are a KL autoencoder's, latents those of others, as the network gives them (no scaling_factor). With
        several text encoders (SDXL) the context is theirs side by side, and pooled is the last one's projected vector.
        """
        found = {}
        if self.first_stage is not None and image is not None:
            encoded = self.first_stage.apply({'params': params['first_stage']}, image, method='encode')
            found['moments' if encoded.shape[-1] == 2 * self.first_stage.z_channels else 'latents'] = encoded
        outputs = [
            encoder.apply({'params': params[part]}, tokens[part]) for part, encoder, _ in self.text_encoders
        ]
        if outputs:
            found['context'] = jnp.concatenate([getattr(o, 'context', o) for o in outputs], axis=-1)
            if (pooled := getattr(outputs[-1], 'projected', None)) is not None:
                found['pooled'] = pooled
        return found


def from_settings(settings: Mapping[str, Any], parts: list[str], dtype: str = 'float32') -> Encoder:
    """The encoder of a model directory's settings, of those of its parts that are named; dtype is for compute.

    Raises ValueError for parts that the model has not, or that encode neither images nor texts.
    """
    have = [part for part in settings['models'] if part == 'first_stage' or part.startswith('text_encoder')]
    if not parts or set(parts) - set(have):
        raise ValueError(f'Parts to encode with must be among {have} of this model; got {parts}.')
    models = {
        part: build('models', dict(settings['models'][part], dtype=dtype)) for part in have if part in parts
    }
    first_stage = models.pop('first_stage', None)
    texts = (
        (part, model, build('text', settings['tokenizer' + part.removeprefix('text_encoder')]))
        for part, model in models.items()
    )
    return Encoder(first_stage, tuple(texts))
