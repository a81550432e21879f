"""Training stage 3: a network denoises latents, told what the conditioning says."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax import trees
from ldm_jax.build import function, unknown
from ldm_jax.data import pipeline
from ldm_jax.diffusion import loss as diffusion_loss
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.process import add_noise
from ldm_jax.models import vae
from ldm_jax.training import conditioning
from ldm_jax.training.conditioning import KINDS, NEEDS, OPTIONAL, TEXT_ENCODERS, Networks
from ldm_jax.training.monitoring import metrics
from ldm_jax.training.stages import latent_examples
from ldm_jax.training.stages.latent_examples import LATENTS
from ldm_jax.training.stages.samples import Samples
from ldm_jax.training.stages.warm_start import fitted
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, Cond, PyTree, Schedule, Tokenizer

PARTS = ('unet', 'first_stage', 'text_encoder', 'text_encoder_2', 'class_embedder', 'rescaler')


@struct.dataclass
class Draws:
    """All the randomness of one step."""

    posterior: Array  # [B, h, w, Z] noise of the first stage's sample
    noise: diffusion_loss.Draws
    drop: dict[str, Array]  # kind of conditioning -> [B] bool: these examples are told nothing of it
    keys: dict[str, Array]  # and keys [B], for what it draws itself


@dataclasses.dataclass(frozen=True)
class Stage(Trained):
    """Latent diffusion over a frozen first stage; without one, diffusion of pixels.

    Batches carry images or what an encoder made of them, and texts' tokens or what an encoder made of those:

        'image' [B, H, W, 3] uint8 or in [-1, 1];  or 'moments' [B, h, w, 2 Z], or 'latents' [B, h, w, Z], not scaled
        'tokens' [B, L] (and 'tokens_2');          or 'context' [B, L, D] (and 'pooled' [B, P])

    and the keys of their other kinds of conditioning. Ref: Rombach et al. 2022, arXiv:2112.10752, eq. 3.

    objective: keyword arguments of diffusion.loss.objective: dict(parameterization='v', weighting='min_snr').
    conditioning: kind (of training/conditioning.py) -> dict(drop_rate=0.1, **its knobs). Where something is dropped
        the network learns the unconditional score that guidance needs, for each kind by a draw of its own
        (Ho & Salimans 2022, arXiv:2207.12598).
    frozen: parameters of the parts that stay as they are; the others are trained.
    initial: parameters of parts to train on from; fresh ones by default.
    null: of data whose texts are embeddings, that of the empty text: dict(context=[L, D], and pooled=[P]).
    samples: fields of training/stages/samples.py: what is sampled while training goes on.
    encode: 'memory' encodes the whole source once, before training; 'step' each batch anew (crops, large data).

    Raises ValueError for settings that contradict each other.
    """

    unet: nn.Module
    schedule: Schedule
    objective: Mapping[str, Any]
    latent_size: int
    conditioning: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    scaling_factor: float = 1.0
    encode: str = 'memory'
    first_stage: nn.Module | None = None
    text_encoder: nn.Module | None = None
    text_encoder_2: nn.Module | None = None
    class_embedder: nn.Module | None = None
    rescaler: nn.Module | None = None
    tokenizer: Tokenizer | None = None
    tokenizer_2: Tokenizer | None = None
    frozen: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    initial: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    null: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        conditioning.check(self.conditioning)
        _ = self._objective, self._kinds, self._samples  # all raise for what does not exist
        if self._samples.prompts and not self._tokenizers:
            raise ValueError(
                'samples.prompts need a text encoder and its tokenizer; name them as pretrained.text_encoder.'
            )
        for kind, rate in self._drop_rates.items():
            if not 0 <= rate < 1:
                raise ValueError(f'conditioning.{kind}.drop_rate must be at least 0 and below 1; got {rate}.')
        if self.encode not in ('memory', 'step'):
            raise ValueError(f"encode is 'memory' or 'step'; got {self.encode!r}.")
        if self.encode == 'memory' and self._image_kinds:
            raise ValueError(f"{self._image_kinds} are made from images in the step: set encode='step'.")
        if self.encode == 'memory' and (trained := [part for part in TEXT_ENCODERS if part in self._trained]):
            raise ValueError(
                f"{trained} are trained here, so texts cannot be encoded before: set encode='step'."
            )
        if 'first_stage' in self._modules and 'first_stage' not in self.frozen:
            raise ValueError(
                'The first stage is not trained here; name a trained one as pretrained.first_stage.'
            )

    def init(self, key: Array) -> PyTree:
        """The parameters that are trained, by part."""
        return {part: self._initial(part, jax.random.fold_in(key, i)) for i, part in enumerate(self._trained)}

    def axes(self) -> dict[str, tuple[str | None, ...]]:
        """The logical axes of each parameter, trained or not, by its path."""
        sizes = {'unet': self.latent_size}
        trees_of = {
            part: trees.logical_axes(module, size=sizes.get(part)) for part, module in self._modules.items()
        }
        return trees.named(trees_of)

    def memory(self) -> PyTree:
        """What is remembered between steps: the losses met at each time, if the objective's times ask for them."""
        return self._objective.times.init(self.schedule)

    def remember(self, memory: PyTree, observed: tuple[Array, Array]) -> PyTree:
        return self._objective.times.update(memory, *observed)

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples:
        """Examples with the keys that the loss wants, texts as tokens; with encode='memory' all encoded, in memory.

        Raises ValueError when the source's examples lack something.
        """
        self._check(source[0])
        examples = pipeline.Mapped(source, self.example)
        keys = self.example(source[0])
        if self.encode == 'step' or not keys.keys() & {'image', *TEXT_ENCODERS.values()}:
            return examples
        if len(pipeline.buckets(source)) > 1:
            raise ValueError(
                "encode='memory' is for examples of one shape, and these are in buckets: set stage.encode='step', or "
                "encode them once with tools/encode_dataset.py and train on data=dict(name='latents', path=...)."
            )
        return pipeline.InMemory(latent_examples.encoded(examples, self._networks, self.frozen))

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What of a source's example goes into a batch; a text becomes tokens."""
        row = dict(row)
        if 'text' in row and 'text' in self.conditioning and 'context' not in row:
            row |= {key: tokenizer(row['text'])[0] for key, tokenizer in self._tokenizers.items()}
        image = [next(key for key in LATENTS if key in row)]
        wanted = [key for kind in self.conditioning for keys in NEEDS[kind] for key in keys]
        wanted += [key for kind in self.conditioning for key in OPTIONAL.get(kind, ())]
        return {key: row[key] for key in dict.fromkeys(image + wanted) if key in row}

    def draw(self, key: Array, batch: PyTree, memory: PyTree | None = None) -> Draws:
        """The draws of a batch; memory is a fresh one by default."""
        posterior, noise, drop, each = jax.random.split(key, 4)
        shape = self._latent_shape(batch)
        memory = self.memory() if memory is None else memory
        kinds = {
            kind: (jax.random.fold_in(drop, i), jax.random.fold_in(each, i))
            for i, kind in enumerate(self.conditioning)
        }
        return Draws(
            posterior=jax.random.normal(posterior, shape),
            noise=self._objective.draw(noise, shape, memory),
            drop={
                kind: jax.random.bernoulli(keys[0], self._drop_rates[kind], shape[:1])
                for kind, keys in kinds.items()
            },
            keys={kind: jax.random.split(keys[1], shape[0]) for kind, keys in kinds.items()},
        )

    def loss(self, params: PyTree, batch: PyTree, draws: Draws) -> tuple[Array, metrics.Metrics]:
        """The objective's loss; 'loss_t' is the error of the network's output, unweighted, by tenths of time."""
        networks = self._networks(params)
        x0 = self._x0(networks, batch, draws.posterior)
        cond = self._cond(networks, batch, draws)
        losses, errors = self._objective.losses(
            functools.partial(networks.apply, 'unet'), x0, cond, draws.noise
        )
        share = draws.noise.t / (self.schedule.num_train_steps - 1)
        found = {'loss_t': metrics.by_bin(errors, share), 'observed': (draws.noise.t, losses)}
        return jnp.mean(draws.noise.weight * losses), found

    def image(self, params: PyTree, batch: PyTree, draws: Draws) -> Array:
        """Rows of images [6, B, S, S, 3]: originals over what the network makes of them at rising noise."""
        networks = self._networks(params)
        x0 = self._x0(networks, batch, None)
        shown = draws.replace(drop=jax.tree.map(jnp.zeros_like, draws.drop))
        cond = self._cond(networks, batch, shown)
        denoise = denoiser(functools.partial(networks.apply, 'unet'), self._objective.parameterization, cond)

        def row(t: Array) -> Array:
            level = self.schedule.level(t)
            return denoise(add_noise(x0, draws.noise.eps, level), level)

        # One after the other, so that the network is once in the program.
        rows = jax.lax.map(row, jnp.linspace(0.1, 0.9, 5) * self.schedule.num_train_steps)
        rows = jnp.concatenate([x0[None], rows])
        decoded = self._decoded(networks, rows.reshape(-1, *x0.shape[1:]))
        return decoded.reshape(*rows.shape[:2], *decoded.shape[1:])

    def sample(self, params: PyTree, batch: PyTree, key: Array) -> dict[str, Array]:
        """samples [1, N, S, S, 3] from noise, told what examples of the batch say, or the prompts of `samples`."""
        if not self._samples.count:
            return {}
        networks, batch = self._networks(params), self._samples.told(batch, self._tokenizers)
        draws = self.draw(key, batch)

        def cond(dropped: bool) -> Cond:
            drop = {
                kind: jnp.full_like(draws.drop[kind], dropped and rate > 0)
                for kind, rate in self._drop_rates.items()
            }
            return self._cond(networks, batch, draws.replace(drop=drop))

        latents = self._samples.latents(
            functools.partial(networks.apply, 'unet'),
            self._objective.parameterization,
            self.schedule,
            cond,
            self._latent_shape(batch),
            key,
            guided=any(self._drop_rates.values()),
        )
        return {'samples': self._decoded(networks, latents)[None]}

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part): everything that sampling needs; params as `loss` is given them."""
        settings = {
            'parameterization': self.objective['parameterization'],
            'scaling_factor': self.scaling_factor,
            'latent_size': self.latent_size,
        }
        return settings, {**self.frozen, **params}

    # What the settings mean

    @functools.cached_property
    def _objective(self) -> diffusion_loss.Objective:
        return diffusion_loss.objective(self.schedule, **self.objective)

    @functools.cached_property
    def _kinds(self) -> dict[str, Any]:
        """Kind of conditioning -> its function, with knobs bound."""
        specs = {kind: {**spec, 'name': kind} for kind, spec in self.conditioning.items()}
        for spec in specs.values():
            spec.pop('drop_rate', None)
        return {kind: function('conditioning', KINDS, spec) for kind, spec in specs.items()}

    @functools.cached_property
    def _samples(self) -> Samples:
        fields = dict(self.samples)
        if unknown_fields := fields.keys() - {field.name for field in dataclasses.fields(Samples)}:
            raise unknown(
                'field of samples', min(unknown_fields), [f.name for f in dataclasses.fields(Samples)]
            )
        return Samples(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})

    @property
    def _drop_rates(self) -> dict[str, float]:
        return {kind: spec.get('drop_rate', 0.0) for kind, spec in self.conditioning.items()}

    @property
    def _image_kinds(self) -> list[str]:
        return [kind for kind in self.conditioning if ('image',) in NEEDS[kind]]

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {part: getattr(self, part) for part in PARTS if getattr(self, part) is not None}

    @property
    def _trained(self) -> list[str]:
        return [part for part in self._modules if part not in self.frozen]

    @property
    def _tokenizers(self) -> dict[str, Tokenizer]:
        found = {'tokens': self.tokenizer, 'tokens_2': self.tokenizer_2}
        used = [TEXT_ENCODERS[part] for part in TEXT_ENCODERS if part in self._modules]
        return {key: found[key] for key in used if found[key] is not None}

    def _initial(self, part: str, key: Array) -> PyTree:
        size = self.latent_size if part == 'unet' else None
        module = self._modules[part]
        if part in self.initial:
            return fitted(self.initial[part], trees.shapes(module, size=size))
        return trees.init(module, key, size=size)

    # From a batch

    def _networks(self, params: PyTree) -> Networks:
        return Networks(self._modules, params, self._tokenizers, self.scaling_factor, self.null)

    def _cond(self, networks: Networks, batch: PyTree, draws: Draws) -> Cond:
        given = [
            kind(networks, batch, draws.drop[name], draws.keys[name]) for name, kind in self._kinds.items()
        ]
        return conditioning.merge(given)

    def _x0(self, networks: Networks, batch: PyTree, posterior: Array | None) -> Array:
        if 'moments' in batch:
            return self.scaling_factor * vae.sample(batch['moments'], posterior)
        if 'latents' in batch:
            return self.scaling_factor * batch['latents']
        return networks.latents(batch['image'], posterior)

    def _decoded(self, networks: Networks, latents: Array) -> Array:
        if self.first_stage is None:
            return latents
        return networks.apply('first_stage', latents / self.scaling_factor, method='decode')

    def _check(self, row: Mapping[str, Any]) -> None:
        encoders = [part for part in TEXT_ENCODERS if part in self._modules]
        tokenized = bool(encoders) and len(self._tokenizers) == len(encoders)
        latent_examples.check(row, self.conditioning, tokenized, has_null='context' in self.null)

    def _latent_shape(self, batch: PyTree) -> tuple[int, ...]:
        key = next(key for key in LATENTS if key in batch)
        b, h, w, channels = batch[key].shape
        if key == 'moments':
            return b, h, w, channels // 2
        if key == 'latents' or self.first_stage is None:
            return b, h, w, channels
        f = self.first_stage.downscale
        return b, h // f, w // f, self.first_stage.z_channels
