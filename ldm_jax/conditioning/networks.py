"""The frozen networks around a denoising network, with parameters bound: what conditionings encode with.

Texts become embeddings and images latents here and nowhere else, for training, sampling and data that are encoded
beforehand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax import adapted, images
from ldm_jax.types import Array, PyTree, Schedule, Tokenizer

# The networks of a model, the denoising one among them: as settings, training and pipelines call them.
PARTS = (
    'unet',
    'first_stage',
    'text_encoder',
    'text_encoder_2',
    'class_embedder',
    'rescaler',
    'image_encoder',
    'image_normalizer',
)
TEXT_ENCODERS = {'text_encoder': 'tokens', 'text_encoder_2': 'tokens_2'}  # part -> the name of its tokens


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of a model with parameters bound.

    Attributes:
        modules, params: by part ('first_stage', 'text_encoder', ...); params may have factors of 'adapters' beside
            them (adapted.py), and strengths [B, K] of these.
        scaling_factor: of latents, to a standard deviation of about 1.
        schedule: of the latents' noise; a conditioning image may be noised by it too.
        tokenizers: by the name of their tokens, where texts may have to be replaced by the empty one.
        empty_text: the empty text's 'context' [L, D] (and 'pooled' [P]), where texts come as embeddings.
    """

    modules: Mapping[str, nn.Module]
    params: Mapping[str, PyTree]
    scaling_factor: float = 1.0
    schedule: Schedule | None = None
    tokenizers: Mapping[str, Tokenizer] = dataclasses.field(default_factory=dict)
    empty_text: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    strengths: Array | None = None

    def module(self, part: str) -> nn.Module:
        """A network. Raises ValueError where the model has no such part."""
        if part not in self.modules:
            raise ValueError(f'Conditioning needs a part {part!r}; the model has {sorted(self.modules)}.')
        return self.modules[part]

    def apply(self, part: str, *args: Any, **kwargs: Any) -> Any:
        """A network's answer."""
        return adapted.apply(
            self.module(part),
            self.params[part],
            *args,
            adapters=self.params.get(adapted.COLLECTION, {}).get(part),
            strengths=self.strengths,
            **kwargs,
        )

    def latents(self, image: Array, eps: Array | None = None) -> Array:
        """Images [B, H, W, C], uint8 or in [-1, 1], to scaled latents [B, h, w, Z]; pixels without a first stage.

        eps: [B, h, w, Z] for a sample of a KL autoencoder's posterior, whose mean is taken by default.
        """
        image = to_float(image)
        if 'first_stage' in self.modules:
            image = self.apply('first_stage', image, eps, method='latents')
        return self.scaling_factor * image

    def images(self, latents: Array) -> Array:
        """Scaled latents [B, h, w, Z] to images [B, H, W, C], nominally in [-1, 1] (not clipped)."""
        latents = latents / self.scaling_factor
        if 'first_stage' not in self.modules:
            return latents
        return self.apply('first_stage', latents, method='decode')

    @property
    def downscale(self) -> int:
        """Pixels for each latent along a side."""
        return self.modules['first_stage'].downscale if 'first_stage' in self.modules else 1


def to_float(image: Array) -> Array:
    """Images in [-1, 1] from uint8 ones; others as they are."""
    return images.to_float(image) if image.dtype == jnp.uint8 else image


def encode_text(networks: Networks, tokens: Mapping[str, Array]) -> dict[str, Array]:
    """Texts by all text encoders: 'context' [B, L, D], side by side, and the last one's projected 'pooled' [B, P].

    Args:
        tokens: 'tokens' [B, L], and 'tokens_2' for a second encoder.

    'pooled' is left out where the last encoder has no projection.
    """
    contexts, pooled = text_vectors(networks, tokens)
    found = {'context': side_by_side(contexts)}
    return found if pooled is None else found | {'pooled': pooled}


def text_vectors(networks: Networks, tokens: Mapping[str, Array]) -> tuple[list[Array], Array | None]:
    """The context [B, L, D] of each text encoder, and the last one's projected text [B, P], None without a projection.

    tokens: as encode_text takes them; 'words' and 'words_2' [B, W, D] are what their negative ids stand for.
    """
    outputs = []
    for part, name in TEXT_ENCODERS.items():
        if part in networks.modules:
            words = [tokens[each] for each in [learned_name(name)] if each in tokens]
            outputs.append(networks.apply(part, tokens[name], *words))
    contexts = [getattr(output, 'context', output) for output in outputs]  # BERT returns the context itself
    return contexts, getattr(outputs[-1], 'projected', None)


def learned_name(tokens: str) -> str:
    """The name of the learned words' vectors that belong to tokens."""
    return tokens.replace('tokens', 'words')


def side_by_side(contexts: Sequence[Array]) -> Array:
    """The contexts of several text encoders as one."""
    return jnp.concatenate(contexts, axis=-1) if len(contexts) > 1 else contexts[0]


def encode_image(networks: Networks, image: Array) -> dict[str, Array]:
    """Images [B, H, W, C] by the first stage, not scaled: 'moments' [B, h, w, 2 Z], or 'latents' [B, h, w, Z].

    A KL autoencoder encodes to the moments of a posterior, from which training draws anew at each step; other first
    stages, and pixels without one, leave nothing to draw.
    """
    image = to_float(image)
    if 'first_stage' not in networks.modules:
        return {'latents': image}
    encoded = networks.apply('first_stage', image, method='encode')
    has_moments = encoded.shape[-1] == 2 * networks.modules['first_stage'].z_channels
    return {'moments' if has_moments else 'latents': encoded}
