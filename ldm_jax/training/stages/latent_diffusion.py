"""Training stage 3: a network denoises latents under the conditioning that comes with them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax import adapted, denoising, trees
from ldm_jax.adapters import files, from_factors
from ldm_jax.conditioning import combine
from ldm_jax.conditioning.networks import PARTS, TEXT_ENCODERS, Networks
from ldm_jax.data import pipeline
from ldm_jax.diffusion import loss as diffusion_loss
from ldm_jax.diffusion.denoiser import Network, denoiser
from ldm_jax.diffusion.process import add_noise
from ldm_jax.training import unknown_words
from ldm_jax.training.monitoring import metrics
from ldm_jax.training.stages import adapter, latent_examples, samples
from ldm_jax.training.stages.adapter import Settings as AdapterSettings
from ldm_jax.training.stages.samples import Samples
from ldm_jax.training.stages.warm_start import fitted
from ldm_jax.training.trained import Trained
from ldm_jax.types import Array, Cond, PyTree, Schedule, Tokenizer


@struct.dataclass
class Randomness:
    """All the randomness of one step."""

    posterior: Array  # [B, h, w, Z] noise of the first stage's sample
    noise: diffusion_loss.Draws
    drop: dict[str, Array]  # kind of conditioning -> [B] bool: it is left out for these examples
    keys: dict[str, Array]  # and keys [B], for its own draws


@dataclasses.dataclass(frozen=True)
class Stage(Trained):
    """Latent diffusion over a frozen first stage; without one, diffusion of pixels.

    Batches carry images or what an encoder made of them, and texts' tokens or what an encoder made of those:

        'image' [B, H, W, 3] uint8 or in [-1, 1];  or 'moments' [B, h, w, 2 Z], or 'latents' [B, h, w, Z], not scaled
        'tokens' [B, L] (and 'tokens_2');          or 'context' [B, L, D] (and 'pooled' [B, P])

    and the keys of their other kinds of conditioning. Ref: Rombach et al. 2022, arXiv:2112.10752, eq. 3.

    objective: keyword arguments of diffusion.loss.objective: dict(parameterization='v', weighting='min_snr').
    unet: a types.DenoisingNetwork of any architecture.
    conditioning: kind, a module of ldm_jax/conditioning -> dict(drop_rate=0.1, **its fields). Where a kind is dropped,
        each by a draw of its own, the network learns the unconditional score that guidance needs
        (Ho & Salimans 2022, arXiv:2207.12598).
    frozen: parameters of the parts that stay as they are; the others are trained.
    warm_start: parameters of parts to train on from; fresh ones by default.
    null: the embedding of the empty text, for data whose texts are embeddings: dict(context=[L, D], and pooled=[P]).
    adapter: fields of training/stages/adapter.py: a LoRA or DoRA of frozen networks is trained, and nothing else.
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
    image_encoder: nn.Module | None = None
    image_normalizer: nn.Module | None = None
    tokenizer: Tokenizer | None = None
    tokenizer_2: Tokenizer | None = None
    frozen: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    warm_start: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    null: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    adapter: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _ = self._objective, self._kinds, self._samples, self._adapter  # which raise for unknown names
        combine.check_network(self._kinds, self._networks({}))
        if self._samples.prompts and not self._tokenizers:
            raise ValueError(
                'samples.prompts need a text encoder and its tokenizer; name them as pretrained.text_encoder.'
            )
        if self.encode not in ('memory', 'step'):
            raise ValueError(f"encode is 'memory' or 'step'; got {self.encode!r}.")
        if self.encode == 'memory' and (made := [n for n, k in self._kinds.items() if ('image',) in k.batch]):
            raise ValueError(f"{made} are made from images in the step: set encode='step'.")
        if self.adapter and self._trained:
            raise ValueError(
                f'An adapter is trained beside frozen networks, and {self._trained} are not: leave models empty beside '
                'a warm_start.'
            )
        parts = self._adapter.parts if self._adapter else ()
        trained = [part for part in TEXT_ENCODERS if part in (*self._trained, *parts)]
        if self.encode == 'memory' and self._reads_tokens and trained:
            raise ValueError(
                f"{trained} are trained here, so texts cannot be encoded before: set encode='step'."
            )
        if 'first_stage' in self._modules and 'first_stage' not in self.frozen:
            raise ValueError(
                'The first stage is not trained here; name a trained one as pretrained.first_stage.'
            )

    def init(self, key: Array) -> PyTree:
        """The parameters that are trained, by part."""
        if self._adapter:
            factors = adapter.initial(self._adapter, self._modules, self.frozen, key)
            return {adapted.COLLECTION: factors}
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
        encoders = [part for part in TEXT_ENCODERS if part in self._modules]
        tokenized = bool(encoders) and len(self._tokenizers) == len(encoders)
        row = pipeline.first_readable(source)
        latent_examples.check(row, self._kinds, tokenized, has_null='context' in self.null)
        examples, keys = pipeline.Mapped(source, self.example), self.example(row)
        if keys.keys() & self._tokenizers.keys():
            unknown_words.warn(source, self._tokenizers, self.frozen)
        if self.encode == 'step' or not keys.keys() & {'image', *TEXT_ENCODERS.values()}:
            return examples
        latent_examples.check_single(source)
        return pipeline.InMemory(latent_examples.encoded(examples, self._networks, self.frozen))

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What of a source's example goes into a batch; a text becomes tokens."""
        row = dict(row)
        if 'text' in row and self._reads_tokens and 'context' not in row:
            row |= {key: tokenizer(row['text'])[0] for key, tokenizer in self._tokenizers.items()}
        wanted = [next(key for key in latent_examples.LATENTS if key in row)]
        for kind in self._kinds.values():
            wanted += [*(key for keys in kind.batch for key in keys), *kind.optional]
        return {key: row[key] for key in dict.fromkeys(wanted) if key in row}

    def draw(self, key: Array, batch: PyTree, memory: PyTree | None = None) -> Randomness:
        """The draws of a batch; memory is a fresh one by default."""
        posterior, noise, drop, own = jax.random.split(key, 4)
        shape = latent_examples.latent_shape(batch, self.first_stage)
        memory = self.memory() if memory is None else memory
        each = {name: i for i, name in enumerate(self._kinds)}
        return Randomness(
            posterior=jax.random.normal(posterior, shape),
            noise=self._objective.draw(noise, shape, memory),
            drop={
                name: jax.random.bernoulli(
                    jax.random.fold_in(drop, i), self._kinds[name].drop_rate, shape[:1]
                )
                for name, i in each.items()
            },
            keys={name: jax.random.split(jax.random.fold_in(own, i), shape[0]) for name, i in each.items()},
        )

    def loss(self, params: PyTree, batch: PyTree, draws: Randomness) -> tuple[Array, metrics.Metrics]:
        """The objective's loss; 'loss_t' is the error of the network's output, unweighted, by tenths of time."""
        networks = self._networks(params)
        x0 = latent_examples.clean(networks, batch, draws.posterior)
        cond = self._cond(networks, batch, draws)
        losses, errors = self._objective.losses(self._network(params), x0, cond, draws.noise)
        share = draws.noise.t / (self.schedule.num_train_steps - 1)
        found = {'loss_t': metrics.by_bin(errors, share), 'observed': (draws.noise.t, losses)}
        return jnp.mean(draws.noise.weight * losses), found

    def image(self, params: PyTree, batch: PyTree, draws: Randomness) -> Array:
        """Rows of images [6, B, S, S, 3]: originals over what the network makes of them at rising noise."""
        networks = self._networks(params)
        x0 = latent_examples.clean(networks, batch, None)
        shown = dataclasses.replace(draws, drop=jax.tree.map(jnp.zeros_like, draws.drop))
        cond = self._cond(networks, batch, shown)
        denoise = denoiser(self._network(params), self._objective.parameterization, cond)

        def row(t: Array) -> Array:
            level = self.schedule.level(t)
            return denoise(add_noise(x0, draws.noise.eps, level), level)

        # One after the other, so that the network is once in the program.
        rows = jax.lax.map(row, jnp.linspace(0.1, 0.9, 5) * self.schedule.num_train_steps)
        rows = jnp.concatenate([x0[None], rows])
        decoded = networks.images(rows.reshape(-1, *x0.shape[1:]))
        return decoded.reshape(*rows.shape[:2], *decoded.shape[1:])

    def sample(self, params: PyTree, batch: PyTree, key: Array) -> dict[str, Array]:
        """samples [1, N, S, S, 3] from noise, conditioned on examples of the batch or on the prompts of `samples`."""
        if not self._samples.count:
            return {}
        networks, batch = self._networks(params), self._samples.conditions(batch, self._tokenizers)
        draws = self.draw(key, batch)

        def cond(dropped: bool) -> Cond:
            drop = {
                name: jnp.full_like(draws.drop[name], dropped and kind.drop_rate > 0)
                for name, kind in self._kinds.items()
            }
            return self._cond(networks, batch, dataclasses.replace(draws, drop=drop))

        latents = self._samples.latents(
            self._network(params),
            self._objective.parameterization,
            self.schedule,
            cond,
            latent_examples.latent_shape(batch, self.first_stage),
            key,
            guided=any(kind.drop_rate for kind in self._kinds.values()),
        )
        return {'samples': networks.images(latents)[None]}

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part): everything that sampling needs; params as `loss` is given them."""
        settings = {
            'parameterization': self.objective['parameterization'],
            'scaling_factor': self.scaling_factor,
            'latent_size': self.latent_size,
            'conditioning': combine.written(self._kinds),
        }
        if self._adapter:
            params = {part: tree for part, tree in params.items() if part != adapted.COLLECTION}
        return settings, {**self.frozen, **params}

    def adapter_of(self, params: PyTree, name: str) -> files.Adapter | None:
        """The adapter that was trained, for a file of a name; None where none was. params as `loss` is given them."""
        if not self._adapter:
            return None
        layers = adapter.layers(self._adapter, self._modules)
        return from_factors.adapter(name, params[adapted.COLLECTION], layers, self._adapter.scale_of)

    # What the settings mean

    @functools.cached_property
    def _objective(self) -> diffusion_loss.Objective:
        return diffusion_loss.objective(self.schedule, **self.objective)

    @functools.cached_property
    def _kinds(self) -> dict[str, combine.Kind]:
        return combine.kinds(self.conditioning)

    @functools.cached_property
    def _samples(self) -> Samples:
        return samples.named(self.samples)

    @functools.cached_property
    def _adapter(self) -> AdapterSettings | None:
        return adapter.named(self.adapter) if self.adapter else None

    @property
    def _reads_tokens(self) -> bool:
        return any(('tokens',) in kind.batch for kind in self._kinds.values())

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
        return {key: tokenizer for key in used if (tokenizer := found[key]) is not None}

    def _initial(self, part: str, key: Array) -> PyTree:
        size = self.latent_size if part == 'unet' else None
        module = self._modules[part]
        if part in self.warm_start:
            return fitted(self.warm_start[part], trees.shapes(module, size=size))
        return trees.init(module, key, size=size)

    # From a batch

    def _networks(self, params: PyTree) -> Networks:
        return Networks(
            self._modules,
            self._acting(params),
            self.scaling_factor,
            self.schedule,
            self._tokenizers,
            self.null,
        )

    def _network(self, params: PyTree) -> Network:
        factors = self._acting(params).get(adapted.COLLECTION, {}).get('unet')
        return denoising.bound(self.unet, params['unet'], factors)

    def _acting(self, params: PyTree) -> PyTree:
        """The parameters, with factors of an adapter scaled as they act."""
        if not self._adapter or adapted.COLLECTION not in params:
            return params
        factors = adapter.scaled(self._adapter, self._modules, params[adapted.COLLECTION])
        return {**params, adapted.COLLECTION: factors}

    def _cond(self, networks: Networks, batch: PyTree, draws: Randomness) -> Cond:
        return combine.merge(
            kind.train(networks, batch, draws.drop[name], draws.keys[name])
            for name, kind in self._kinds.items()
        )
