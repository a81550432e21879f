"""Training stage 2: a CLIP pair of text and image encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.data import pipeline
from ldm_jax.images import to_float
from ldm_jax.models import clip, clip_vision
from ldm_jax.training.stages.warm_start import fitted
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, PyTree, Tokenizer

MAX_SCALE = 100.0  # of the logits
TOWERS = {'text': 'text_encoder', 'vision': 'image_encoder'}  # of the pair -> the part of a model


@dataclasses.dataclass(frozen=True)
class Stage(Trained):
    """Captions and images are pulled together, mismatched ones apart.

    warm_start: parameters of text_encoder and image_encoder, of both or one, to train on from; fresh ones by default.
        The temperature is always fresh: models do not keep it.

    Ref: Radford et al. 2021, arXiv:2103.00020, figure 3; the temperature's bound is of section 2.5.
    """

    text_encoder: nn.Module  # models/clip_text.py
    image_encoder: nn.Module  # models/clip_vision.py
    tokenizer: Tokenizer  # of ldm_jax/text
    warm_start: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    compares: ClassVar[bool] = True  # its loss is of the whole batch

    @property
    def model(self) -> nn.Module:
        """The pair as one network."""
        return clip.Model(text=self.text_encoder, vision=self.image_encoder)

    def init(self, key: Array) -> PyTree:
        """Parameters of the pair. Raises ValueError for those of another network in warm_start."""
        params = dict(trees.init(self.model, key))
        for tower, part in TOWERS.items():
            if part in self.warm_start:
                params[tower] = fitted(self.warm_start[part], params[tower])
        return params

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples:
        """Examples as the loss wants them: dict(image=float32 [S, S, 3] in [-1, 1], tokens=int32 [L])."""

        def example(row):
            return {'image': to_float(row['image']), 'tokens': self.tokenizer(row['text'])[0]}

        return pipeline.Mapped(source, example)

    def draw(self, key: Array, batch: PyTree) -> tuple[()]:
        """Nothing: this loss has no randomness."""
        return ()

    def axes(self) -> dict[str, tuple[str | None, ...]]:
        """The logical axes of each parameter, by its path."""
        return trees.named(trees.logical_axes(self.model))

    def loss(
        self, params: PyTree, batch: PyTree, draws: tuple[()], axis_name: str | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """The symmetric cross entropy over all pairs of the batch; under pmap over those of all devices' batches."""
        image, text, scale = self._embed(params, batch)
        if axis_name is not None:
            image, text = jax.lax.all_gather((image, text), axis_name, tiled=True)
        best = jnp.argmax(text @ image.T, axis=1)
        accuracy = jnp.mean(best == jnp.arange(len(best)))
        return clip.contrastive_loss(image, text, scale), {'accuracy': accuracy, 'scale': scale}

    def image(self, params: PyTree, batch: PyTree, draws: PyTree) -> Array:
        """Rows of images [5, B, S, S, 3]: each caption's own over the four that the model finds nearest to it."""
        image, text, _ = self._embed(params, batch)
        nearest = jax.lax.top_k(text @ image.T, 4)[1]  # [B, 4]
        return jnp.concatenate([batch['image'][None], batch['image'][nearest.T]])

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part).

        Token vectors that no caption of the batches used never got a gradient: they are set to zero, so that
        an unknown word adds nothing instead of noise (and its row compresses to nothing).
        """
        seen = np.unique(np.concatenate([batch['tokens'].ravel() for batch in batches]))
        text = dict(params['text'])
        table = np.asarray(text['token_embedding']['embedding'])
        known = np.zeros_like(table)
        known[seen] = table[seen]
        text['token_embedding'] = {'embedding': known}
        return {}, {'text_encoder': text, 'image_encoder': params['vision']}

    def _embed(self, params: PyTree, batch: PyTree) -> tuple[Array, Array, Array]:
        images = clip_vision.normalize(batch['image'])
        image, text, scale = self.model.apply({'params': params}, images, batch['tokens'])
        return image, text, jnp.minimum(scale, MAX_SCALE)
