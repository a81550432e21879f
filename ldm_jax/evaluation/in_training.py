"""Measurements while a stage trains: what tools/train.py hands to the training loop for run.evaluate.

A first stage is measured by its reconstructions of the first examples, a diffusion model by images sampled under their
conditioning (`stage.samples` says how) against those examples as the first stage decodes them. Examples and noise are
the same each time, so that numbers of two steps are paired.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import build
from ldm_jax.diffusion import prng
from ldm_jax.evaluation import direction

PREFIX = 'evaluate/'  # before the names of numbers in a run's log
SIDE = 8  # of the images of which rows for metrics of sets are made


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Numbers of a training state.

    stage: what trains. examples: as its step wants them. metrics: specs of ldm_jax/evaluation, or their names.
    num_images, batch_size: that are made, all together and at a time.

    Metrics of sets are of images reduced to 8 x 8: good for seeing a run go wrong, not for comparing papers.
    """

    stage: Any
    examples: Any
    metrics: Sequence[Any]
    num_images: int = 256
    batch_size: int = 64

    def __post_init__(self):
        if len(self.examples) < self.num_images:
            raise ValueError(
                f'run.evaluate.num_images is {self.num_images}, and there are {len(self.examples)} examples.'
            )
        pairs = [name for name, metric in self._built.items() if metric.against == 'pair']
        if pairs and self._samples:
            raise ValueError(
                f'{pairs[0]} compares images with what they should be, which samples from noise have not: take '
                "metrics of sets, such as 'fd'."
            )
        if not hasattr(self.stage, 'image'):
            raise ValueError(f'{type(self.stage).__module__} makes no images: leave run.evaluate out.')

    def __call__(self, state: Any) -> dict[str, float]:
        """The numbers of a state's average, by their names in the log."""
        states = {name: metric.init() for name, metric in self._built.items()}
        real = dict(states)
        for first in range(0, self.num_images, self.batch_size):
            count = min(self.batch_size, self.num_images - first)
            batch = self._batch(first)
            made, wanted = jax.device_get(self._images(state.ema_params, batch, np.int32(first)))
            made, wanted = made[:count], wanted[:count]
            numbers = first + np.arange(count)
            for name, metric in self._built.items():
                if metric.against == 'pair':
                    states[name] = metric.update(states[name], metric.scores(made, wanted), numbers)
                else:
                    states[name] = metric.update(states[name], pooled(made), numbers)
                    real[name] = metric.update(real[name], pooled(wanted), numbers)
        found: dict[str, float] = {}
        for name, metric in self._built.items():
            measured = metric.result(states[name], None if metric.against == 'pair' else real[name])
            found |= {PREFIX + key: float(value) for key, value in measured.items()}
        return found

    def sign(self, name: str) -> int:
        """1 where more of a number is better, -1 where less is."""
        return direction.sign(name)

    @functools.cached_property
    def _built(self) -> Mapping[str, Any]:
        specs = [{'name': each} if isinstance(each, str) else dict(each) for each in self.metrics]
        return {spec['name']: build.build('evaluation', spec) for spec in specs}

    @property
    def _samples(self) -> bool:
        return hasattr(self.stage, 'samples')

    def _batch(self, first: int) -> Any:
        """Examples from a number on, the last ones again where a batch is not full."""
        last = self.num_images - 1
        rows = [self.examples[min(first + i, last)] for i in range(self.batch_size)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    @functools.cached_property
    def _images(self) -> Any:
        stage = self.stage
        if self._samples:
            count = {'count': self.batch_size, 'prompts': ()}
            stage = dataclasses.replace(stage, samples={**stage.samples, **count})

        def run(params, batch, first):
            key = jax.random.fold_in(prng.key(0), first)
            rows = stage.image(params, batch, stage.draw(key, batch))
            made = stage.sample(params, batch, key)['samples'][0] if self._samples else rows[1]
            return made, rows[0]

        return jax.jit(run)


def pooled(images: np.ndarray) -> np.ndarray:
    """Images [B, H, W, C] as rows [B, 8 x 8 x C] of means."""
    b, h, w, c = images.shape
    high, wide = max(1, h // SIDE), max(1, w // SIDE)
    cut = images[:, : h // high * high, : w // wide * wide]
    return cut.reshape(b, h // high, high, w // wide, wide, c).mean((2, 4)).reshape(b, -1)


def evaluator(stage: Any, examples: Any, settings: Any) -> Evaluator:
    """The evaluator of run.evaluate. Raises ValueError for metrics that the stage cannot be measured by."""
    return Evaluator(stage, examples, settings.metrics, settings.num_images, settings.batch_size)
