"""Training stage 3: a network denoises latents, told what the conditioning says."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ldm_jax import trees
from ldm_jax.build import function
from ldm_jax.data import pipeline
from ldm_jax.diffusion import loss as diffusion_loss
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.process import add_noise
from ldm_jax.models import vae
from ldm_jax.progress import progress
from ldm_jax.training import conditioning, metrics
from ldm_jax.training.conditioning import KINDS, NEEDS, OPTIONAL, TEXT_ENCODERS, Networks
from ldm_jax.training.initial import fitted
from ldm_jax.types import Array, Cond, PyTree, Schedule, Tokenizer

PARTS = ('unet', 'first_stage', 'text_encoder', 'text_encoder_2', 'class_embedder', 'rescaler')
LATENTS = ('moments', 'latents', 'image')  # a batch has the first of these that an example has


@struct.dataclass
class Draws:
    """All the randomness of one step."""

    posterior: Array  # [B, h, w, Z] noise of the first stage's sample
    noise: diffusion_loss.Draws
    drop: dict[str, Array]  # kind of conditioning -> [B] bool: these examples are told nothing of it
    keys: dict[str, Array]  # and keys [B], for what it draws itself


@dataclasses.dataclass(frozen=True)
class Stage:
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
    encode: 'memory' encodes the whole source once, before training; 'step' each batch anew (crops, large data).

    Raises ValueError for settings that contradict each other.
    """

    unet: nn.Module
    schedule: Schedule
    objective: Mapping[str, Any]
    latent_size: int
    conditioning: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    latent_scale: float = 1.0
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

    def __post_init__(self):
        conditioning.check(self.conditioning)
        _ = self._objective, self._kinds  # both raise for what does not exist
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

    def memory(self) -> PyTree:
        """What is remembered between steps: the losses met at each time, if the objective's times ask for them."""
        return self._objective.times.init(self.schedule)

    def remember(self, memory: PyTree, observed: tuple[Array, Array]) -> PyTree:
        return self._objective.times.update(memory, *observed)

    def prepare(self, source: pipeline.Examples) -> pipeline.Examples:
        """Examples with the keys that the loss wants, texts as tokens; with encode='memory' all encoded, in memory.

        Raises ValueError when the source's examples lack something.
        """
        self._check_example(source[0])
        examples = pipeline.Mapped(source, self.example)
        keys = self.example(source[0])
        if self.encode == 'step' or not keys.keys() & {'image', *TEXT_ENCODERS.values()}:
            return examples
        return pipeline.InMemory(self._encoded(examples))

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

    def picture(self, params: PyTree, batch: PyTree, draws: Draws) -> Array:
        """Rows of images [6, B, S, S, 3]: originals over what the network makes of them at rising noise."""
        networks = self._networks(params)
        x0 = self._x0(networks, batch, None)
        shown = draws.replace(drop=jax.tree.map(jnp.zeros_like, draws.drop))
        cond = self._cond(networks, batch, shown)
        denoise = denoiser(functools.partial(networks.apply, 'unet'), self._objective.parameterization, cond)
        rows = [x0]
        for t in np.linspace(0.1, 0.9, 5) * self.schedule.num_train_steps:
            level = self.schedule.level(t)
            rows.append(denoise(add_noise(x0, draws.noise.eps, level), level))
        if self.first_stage is None:
            return jnp.stack(rows)
        decoded = networks.apply('first_stage', jnp.concatenate(rows) / self.latent_scale, method='decode')
        return decoded.reshape(len(rows), -1, *decoded.shape[1:])

    def export(self, params: PyTree, batches: Iterable[PyTree]) -> tuple[dict[str, Any], dict[str, PyTree]]:
        """(settings, parameters by part): everything that sampling needs; params as `loss` is given them."""
        settings = {
            'parameterization': self.objective['parameterization'],
            'latent_scale': self.latent_scale,
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
        return Networks(self._modules, params, self._tokenizers, self.latent_scale)

    def _cond(self, networks: Networks, batch: PyTree, draws: Draws) -> Cond:
        given = [
            kind(networks, batch, draws.drop[name], draws.keys[name]) for name, kind in self._kinds.items()
        ]
        return conditioning.merge(given)

    def _x0(self, networks: Networks, batch: PyTree, posterior: Array | None) -> Array:
        if 'moments' in batch:
            return self.latent_scale * vae.sample(batch['moments'], posterior)
        if 'latents' in batch:
            return self.latent_scale * batch['latents']
        return networks.latents(batch['image'], posterior)

    def _latent_shape(self, batch: PyTree) -> tuple[int, ...]:
        key = next(key for key in LATENTS if key in batch)
        b, h, w, channels = batch[key].shape
        if key == 'moments':
            return b, h, w, channels // 2
        if key == 'latents' or self.first_stage is None:
            return b, h, w, channels
        f = self.first_stage.downscale
        return b, h // f, w // f, self.first_stage.z_channels

    def _check_example(self, row: Mapping[str, Any]) -> None:
        encoders = [part for part in TEXT_ENCODERS if part in self._modules]
        tokenized = encoders and len(self._tokenizers) == len(encoders)
        have = row.keys() | ({'tokens'} if 'text' in row and tokenized else set())
        for kind in self.conditioning:
            if not any(have >= set(keys) for keys in NEEDS[kind]):
                wanted = ' or '.join(str(list(keys)) for keys in NEEDS[kind])
                raise ValueError(
                    f'Conditioning on {kind!r} needs {wanted} of each example; the data have {sorted(row)}. '
                    "A 'text' gives tokens where there are text encoders, each with a tokenizer."
                )
        if not have & set(LATENTS):
            raise ValueError(f'Each example needs one of {list(LATENTS)}; the data have {sorted(row)}.')
        spec = self.conditioning.get('text')
        dropped = spec is not None and spec.get('drop_rate', 0.0) and spec.get('null', 'empty') == 'empty'
        if dropped and not tokenized:
            raise ValueError(
                'Dropped texts become the empty one, which needs text_encoder and tokenizer; name them as '
                "pretrained.text_encoder, or set conditioning.text.null='zeros'."
            )

    def _encoded(self, examples: pipeline.Examples, batch_size: int = 64) -> dict[str, np.ndarray]:
        """All examples, each key stacked; images as moments (or latents), tokens as context."""

        @jax.jit
        def encode(params, batch):
            networks, found = self._networks(params), dict(batch)
            if 'image' in found:
                image = conditioning.to_float(found.pop('image'))
                # Of a KL first stage `encode` gives moments; there is nothing to sample of others.
                key = 'moments' if isinstance(self.first_stage, vae.Model) else 'latents'
                found[key] = (
                    image
                    if self.first_stage is None
                    else networks.apply('first_stage', image, method='encode')
                )
            if 'tokens' in found:
                found['context'], pooled = conditioning.encode_text(networks, found)
                found |= {} if pooled is None else {'pooled': pooled}
                found = {key: value for key, value in found.items() if key not in TEXT_ENCODERS.values()}
            return found

        frozen = jax.tree.map(jnp.asarray, dict(self.frozen))
        total = -(-len(examples) // batch_size)
        batches = progress(pipeline.in_order(examples, batch_size), total, 'encoding')
        encoded = [jax.device_get(encode(frozen, batch)) for batch in batches]
        return {key: np.concatenate([batch[key] for batch in encoded]) for key in encoded[0]}
