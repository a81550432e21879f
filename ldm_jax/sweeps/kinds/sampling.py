"""A cell is a set of images, sampled with one setting of everything from noise that all cells share.

Image i of seed s starts from the noise of the number s * num_images + i and from prompt i, whatever the other settings,
so that differences between cells are paired. Seeds and the numbers of guidance and eta go through one call of one
program; a program is compiled for each class of sampler, and for what guidance evaluates.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from ldm_jax import build, knobs
from ldm_jax.build import unknown
from ldm_jax.conditioning.combine import joined
from ldm_jax.images import to_float, to_uint8
from ldm_jax.inference import model_kinds
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.sweeps import evaluations
from ldm_jax.sweeps.definition import SEED, Cell, key
from ldm_jax.sweeps.features import FEATURES
from ldm_jax.sweeps.identity import checksum
from ldm_jax.sweeps.results import Result, Results
from ldm_jax.types import Cond

ERROR = 'error'
OWN = ('model', 'weak_model', SEED, 'evaluations')  # settings that are not the sampler's
SAMPLING = knobs.settings(Sampling)
GUIDANCE = knobs.settings(Guidance)
# Settings with a value for each image: cells that differ in these alone are one call.
BATCHED = (
    SEED,
    'eta',
    *(name for name, each in GUIDANCE.items() if each.knob.kind is float and not each.knob.shared),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """How the cells of a sampling sweep are computed. Settings: those of `Sampling` by their flat names, and

        model, weak_model    names or paths
        seed                 of the noise
        evaluations          in place of num_steps: as many steps as take at most so many evaluations of the network

    Attributes:
        prompts: of the images in turn; none for a model without conditioning.
        num_images: of each cell.
        metrics: name -> its fields: 'error', or metrics of ldm_jax/evaluation of pairs (against the exact solution's
            images) or of sets (rows of features against the reference's).
        exact: settings of what 'error' and pairs are measured against, beside the cell's own model, seed and guidance,
            such as dict(sampler='heun', grid='karras', num_steps=400).
        features: of metrics of sets: a function of sweeps/features.py, or a dotted name.
        reference: dict(data=spec of ldm_jax/data, count=...): real images for metrics of sets.
        shown: images that are kept for the report.
        together: images that are sampled in one call at most.
    """

    prompts: tuple[str, ...] = ()
    num_images: int = 64
    metrics: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    exact: Mapping[str, Any] | None = None
    features: Any = 'latents'
    reference: Mapping[str, Any] | None = None
    shown: int = 4
    together: int = 512
    cost: ClassVar[tuple[str, ...]] = ('evaluations', 'seconds')

    def __post_init__(self):
        if self.num_images < 1:
            raise ValueError(f'cells.num_images must be at least 1; got {self.num_images}.')
        build.function('features', FEATURES, self.features)
        pairs = [name for name, metric in self._metrics.items() if metric.against == 'pair']
        if self.exact is None and (pairs or ERROR in self.metrics):
            raise ValueError(
                f'{(ERROR, *pairs)[0]} is measured against the exact solution: give cells.exact, such as '
                "dict(sampler='heun', grid='karras', num_steps=400)."
            )
        if self.reference is None and self.set_metrics():
            raise ValueError(
                'Metrics of sets need real images: give cells.reference=dict(data=..., count=...).'
            )

    @functools.cached_property
    def _metrics(self) -> dict[str, Any]:
        return {
            name: build.build('evaluation', {'name': name, **fields})
            for name, fields in self.metrics.items()
            if name != ERROR
        }

    def check(self, settings: Sequence[Mapping[str, Any]]) -> None:
        """Raises ValueError for settings that are unknown or out of range."""
        for each in settings:
            for name in each:
                if name not in SAMPLING and name not in OWN:
                    raise unknown('setting of a cell', name, [*OWN, *SAMPLING])
            if 'model' not in each:
                raise ValueError("A cell needs a model: settings=dict(model='emoji32').")
            if 'evaluations' in each and 'num_steps' in each:
                raise ValueError('evaluations says how many steps are made: leave num_steps out.')
            self._sampling([each])
            if self.exact is not None:
                self._sampling([self._exact_settings(each)])

    def identity(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """What stands behind the models' names: the checksums of their arrays."""
        return {name: checksum(settings[name]) for name in ('model', 'weak_model') if settings.get(name)}

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cells that go through one call: those that differ in settings of each image alone."""
        found: dict[str, list[Cell]] = {}
        for cell in cells:
            shared = {name: value for name, value in cell.settings.items() if name not in BATCHED}
            given = sorted(name for name in BATCHED if cell.settings.get(name) is not None)
            found.setdefault(key(given, shared, {}), []).append(cell)
        size = max(1, self.together // self.num_images)
        return [group[i : i + size] for group in found.values() for i in range(0, len(group), size)]

    def compute(self, cells: Sequence[Cell], results: Results) -> Iterator[Result]:
        """The results of a group's cells, in order."""
        settings = [cell.settings for cell in cells]
        pipeline = self._pipeline(settings[0])
        latents, numbers = self._sample(pipeline, settings)
        for cell, made in zip(cells, latents, strict=True):
            arrays: dict[str, np.ndarray] = {}
            images = pipeline.decode(made if self._pairs else made[: self.shown])
            arrays['images'] = to_uint8(images[: self.shown])
            if self.exact is not None:
                exact = self._exact(pipeline, cell.settings, results)
                if ERROR in self.metrics:
                    arrays[f'scores/{ERROR}'] = relative(made, exact['latents'])
                for name in self._pairs:
                    arrays[f'scores/{name}'] = self._metrics[name].scores(images, exact['decoded'])[:, 0]
            if self.set_metrics():
                arrays['rows/features'] = self._features(pipeline, made)
            yield Result(numbers, arrays)

    def reference_rows(self, results: Results, settings: Mapping[str, Any]) -> np.ndarray | None:
        """Features of the real images [n, D], computed once in a folder; None without a reference."""
        if self.reference is None:
            return None
        behind = self.identity({'model': settings['model']})
        cell = Cell({}, key({'reference': self.reference, 'features': self.features}, {}, behind))
        with results.claimed(cell.key):
            if not results.has(cell.key):
                pipeline = self._pipeline(settings)
                results.write(cell, Result({}, {'rows/features': self._real(pipeline)}))
        return results.read(cell.key).arrays['rows/features']

    def set_metrics(self) -> list[Any]:
        """The metrics of sets, which the table measures on the rows of all seeds together."""
        return [metric for metric in self._metrics.values() if metric.against == 'set']

    @property
    def _pairs(self) -> list[str]:
        return [name for name, metric in self._metrics.items() if metric.against == 'pair']

    def _features(self, pipeline: Pipeline, latents: np.ndarray) -> np.ndarray:
        return build.function('features', FEATURES, self.features)(pipeline, latents)

    def _real(self, pipeline: Pipeline) -> np.ndarray:
        source = build.build('data', self.reference['data'])
        count = self.reference.get('count', len(source))
        if count > len(source):
            raise ValueError(f'cells.reference.count is {count}, and there are {len(source)} images.')
        chosen = np.random.default_rng(0).permutation(len(source))[:count]
        rows = []
        for first in range(0, count, self.num_images):
            images = np.stack([source[int(i)]['image'] for i in chosen[first : first + self.num_images]])
            rows.append(self._features(pipeline, pipeline.encode(to_float(images))))
        return np.concatenate(rows)

    def _pipeline(self, settings: Mapping[str, Any]) -> Pipeline:
        return _opened(settings['model'], settings.get('weak_model'), self.num_images)

    def _sampling(self, settings: Sequence[Mapping[str, Any]], num_steps: int | None = None) -> Sampling:
        """The sampling of cells that differ in settings of each image; each has num_images."""
        values = {name: value for name, value in settings[0].items() if name in SAMPLING}
        for name in BATCHED:
            if isinstance(values.get(name), int | float):
                values[name] = [float(each[name]) for each in settings for _ in range(self.num_images)]
        return knobs.make(Sampling, values | ({} if num_steps is None else {'num_steps': num_steps}))

    def _sample(
        self, pipeline: Pipeline, settings: Sequence[Mapping[str, Any]]
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Latents [cells, N, h, w, Z], and what they cost."""
        schedule = pipeline.parts.schedule
        if 'evaluations' in settings[0]:
            steps, _ = evaluations.steps_for(
                functools.partial(self._sampling, settings[:1]), schedule, settings[0]['evaluations']
            )
            sampling = self._sampling(settings, steps)
        else:
            sampling = self._sampling(settings)
        sampler, levels = sampling.plan(schedule)
        counted = evaluations.count(sampler, levels)
        n, size = self.num_images, pipeline.size()
        seeds = [int(each.get(SEED, 0)) * n + i for each in settings for i in range(n)]
        x = starting_noise(pipeline, sampling, levels, seeds, size)
        conds, guidance = self._conditions(pipeline, sampling, len(settings))
        run = functools.partial(pipeline.sample, sampling, x, conds=conds, seeds=seeds, guidance=guidance)
        first = jax.tree.map(lambda a: a[:2], levels)
        if not hasattr(sampler, 'solve'):
            run(levels=first)  # so that compiling is no part of the time
        started = time.monotonic()
        latents = run(levels=levels)
        numbers = {'seconds': (time.monotonic() - started) / len(seeds), 'num_steps': len(levels.sigma) - 1}
        if counted is not None:
            numbers['evaluations'] = counted
        return latents.reshape(len(settings), n, *latents.shape[1:]), numbers

    def _conditions(self, pipeline: Pipeline, sampling: Sampling, cells: int) -> tuple[tuple[Cond, ...], Any]:
        batch = cells * self.num_images
        if not self.prompts:
            model_kinds.check(pipeline.parts, 'unconditional')
            return (joined({}),), pipeline.guidance(sampling, batch)
        model_kinds.check(pipeline.parts, 'text_to_image', 'text')
        prompts = [self.prompts[i % len(self.prompts)] for i in range(self.num_images)] * cells
        return prompt_conds(pipeline, sampling, prompts, '', pipeline.size())

    def _exact_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in settings.items() if name in GUIDANCE or name in OWN[:3]}
        return kept | dict(self.exact or {})

    def _exact(
        self, pipeline: Pipeline, settings: Mapping[str, Any], results: Results
    ) -> dict[str, np.ndarray]:
        """The exact solution's latents, and images where pairs are compared, computed once in a folder."""
        chosen = self._exact_settings(settings)
        spec = {'prompts': self.prompts, 'num_images': self.num_images, 'pairs': bool(self._pairs)}
        cell = Cell(chosen, key(spec, chosen, self.identity(chosen)))
        with results.claimed(cell.key):
            if not results.has(cell.key):
                latents, numbers = self._sample(pipeline, [chosen])
                arrays = {'latents': latents[0]}
                if self._pairs:
                    arrays['decoded'] = pipeline.decode(latents[0])
                results.write(cell, Result(numbers, arrays))
        return _read(results, cell.key)


def relative(x: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance of each image's latents from the exact ones over the latter's norm [N]."""
    x, exact = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, exact))
    return np.linalg.norm(x - exact, axis=1) / np.linalg.norm(exact, axis=1)


@functools.lru_cache(64)
def _read(results: Results, key: str) -> dict[str, np.ndarray]:
    return dict(results.read(key).arrays)


@functools.lru_cache(4)
def _opened(model: str, weak_model: str | None, batch_size: int) -> Pipeline:
    return open_pipeline(model, weak_model=weak_model, batch_size=batch_size)
