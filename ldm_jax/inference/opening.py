"""Models made ready to sample: first described by their settings, then opened with their parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Sharding

from ldm_jax import adapted, denoising
from ldm_jax.adapters import apply, blocks, files
from ldm_jax.adapters import live as live_factors
from ldm_jax.build import build
from ldm_jax.checkpoints import default_tokenizers, learned_words, loading, store, take_parts
from ldm_jax.conditioning.networks import TEXT_ENCODERS
from ldm_jax.diffusion.multidiffusion import Windows
from ldm_jax.inference import model as parts_of
from ldm_jax.inference import model_kinds
from ldm_jax.inference.model import Params, Parts
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.programs import Programs
from ldm_jax.inference.sizes import check_size
from ldm_jax.inference.tiled import FirstStage
from ldm_jax.text.prompts.words import Word
from ldm_jax.types import Tokenizer

programs_of = functools.lru_cache(16)(Programs)  # a model that is opened again compiles nothing again


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A model that can be sampled, as its settings describe it; its parameters are not read yet.

    read: reads the parameters of all parts, each array onto a sharding, or to the host where it is None.
    adapters: that are merged into them.
    words: learned words that prompts may name.
    """

    parts: Parts
    settings: Mapping[str, Any]
    read: Callable[[Sharding | None], Params]
    adapters: tuple[files.Adapter, ...] = ()
    words: Mapping[str, Word] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """The text encoders' tokenizers, in their order."""
        names = [name for name in ('tokenizer', 'tokenizer_2') if name in self.settings]
        return tuple(build('text', self.settings[name]) for name in names)

    @functools.cached_property
    def kind(self) -> str:
        """The kind of model_kinds.KINDS."""
        return model_kinds.kind(self.parts)

    @property
    def own_scale(self) -> float | None:
        """The guidance scale that suits the model; None where nothing guides."""
        return model_kinds.own_scale(self.parts, self.settings.get('guidance_scale'))


def describe(
    model: str | loading.Loaded,
    *,
    dtype: str = 'float32',
    weak_model: str | loading.Loaded | None = None,
    text_encoder: str | None = None,
    vae: str | None = None,
    clip_skip: int = 1,
    seamless: str | None = None,
    window: int | None = None,
    tile: int | None = None,
    embeddings: Sequence[str] | None = None,
    adapters: Sequence[tuple] = (),
    live: bool = False,
) -> Described:
    """A model by its name, path or hub id as `checkpoints.loading.load` takes them, or by what that gave.

    Args:
        dtype: of the computation; norms, softmax and the sampler's own arithmetic stay float32.
        weak_model: a model whose U-Net is to be guided away from (autoguidance): smaller, or of an earlier step, with
            the same latents and texts. Named as the model is.
        text_encoder, vae: models whose text encoders with their tokenizers, or first stage, take the place of the
            model's own, or of none.
        clip_skip: clip_skip - 1 layers of the CLIP text encoders are left out, as the web UI does it for Stable
            Diffusion 1 and 2; SDXL counts from the last layer but one, which is its own.
        seamless: axes on which images continue in themselves: 'x', 'y' or 'xy'.
        window: pixels along the sides of what the U-Net sees at once, for larger images (MultiDiffusion). Half of
            each overlaps the next one.
        tile: pixels along the sides of the tiles that the first stage works on, for its memory. A quarter overlaps.
        embeddings: files of learned words (textual inversion) and folders of them, which prompts name.
        adapters: (adapter, strength) of LoRAs and their kin, merged into the parameters in this order. An adapter is a
            path, a folder, a repository on the hub, or one that was read; a strength a number, (U-Net, text encoders)
            or an adapters.blocks.Strength. A third value is how many of its rank count.
        live: adapters are factors in the program rather than merged: `Pipeline.with_strengths` changes their strengths,
            for each image and step if need be.

    Raises what `load` raises, and ValueError for a model that cannot be sampled or others that do not fit it.
    """
    settings, read = _source(model)
    for group, other in (('text_encoder', text_encoder), ('first_stage', vae)):
        if other is not None:
            settings, read = _with(settings, read, group, other)
    parts = parts_of.from_settings(settings, dtype)
    _check_texts(parts)
    if weak_model is not None:
        others, read_other = _source(weak_model, ['unet'])
        parts = parts_of.with_weak_model(parts, others, dtype)
        read = functools.partial(_joined, read, read_other, {'unet': 'weak_model'}, None)
    used = _used(parts, adapters)
    if used:
        read = functools.partial(_live if live else _merged, read, used)
    if clip_skip != 1:
        parts = parts_of.skipping(parts, clip_skip)
    if seamless is not None:
        parts = parts_of.seamless(parts, seamless)
    if window is not None:
        side = _latents(parts, window, denoising.downscale(parts.unet))
        parts = dataclasses.replace(parts, windows=Windows(side, side // 2))
    if tile is not None:
        side = _latents(parts, tile, 1)
        parts = dataclasses.replace(parts, first_stage=FirstStage(parts.first_stage, side, side // 4))
    adapted = tuple(adapter for adapter, _ in used)
    return Described(parts, settings, read, adapted, _words(parts, embeddings))


def open_described(
    described: Described, devices: Sequence[jax.Device] | None = None, batch_size: int | None = None
) -> Pipeline:
    """The pipeline of a model that was described: reads its parameters and places them."""
    programs = programs_of(described.parts, tuple(jax.local_devices() if devices is None else devices))
    own, sampling = (described.settings.get(name) for name in ('guidance_scale', 'sampling'))
    params = described.read(programs.everywhere)
    return Pipeline(
        described.parts,
        params,
        described.tokenizers,
        programs,
        batch_size,
        own,
        sampling,
        words=described.words,
    )


def open_pipeline(
    model: str | loading.Loaded,
    *,
    devices: Sequence[jax.Device] | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Pipeline:
    """The pipeline of a model.

    Args:
        model, options: as `describe` takes them.
        devices: to spread batches over; all local ones by default.
        batch_size: images that are sampled at a time on all devices together; all of a call by default.
    """
    return open_described(describe(model, **options), devices, batch_size)


def _source(
    model: str | loading.Loaded, parts: Sequence[str] | None = None
) -> tuple[Mapping[str, Any], Callable[[Sharding | None], Params]]:
    """The settings of a model, and what reads its parameters."""
    if not isinstance(model, str):
        return default_tokenizers.completed(model.settings), functools.partial(_placed, model.params)
    stored = store.open_model(loading.resolve(model))

    def read(sharding: Sharding | None) -> Params:
        return loading.load_stored(stored, model, parts, shardings=sharding).params

    return default_tokenizers.completed(stored.settings), read


def _with(
    settings: Mapping[str, Any],
    read: Callable[[Sharding | None], Params],
    group: str,
    model: str | loading.Loaded,
) -> tuple[Mapping[str, Any], Callable[[Sharding | None], Params]]:
    """Settings and reader with a group of parts (take_parts.GROUPS) of another model."""
    others, _ = _source(model)
    where = model if isinstance(model, str) else 'the other model'
    names = take_parts.parts_of(group, others, where)
    found = take_parts.taken(settings, group, others, where)
    take_parts.check_fit(found, group, where)
    kept = tuple(name for name in settings['models'] if name not in take_parts.GROUPS[group][0])
    _, read_other = _source(model, names)
    return found, functools.partial(_joined, read, read_other, {name: name for name in names}, kept)


def _placed(params: Params, sharding: Sharding | None) -> Params:
    return params if sharding is None else jax.device_put(params, sharding)


def _joined(
    read: Callable[[Sharding | None], Params],
    read_other: Callable[[Sharding | None], Params],
    names: Mapping[str, str],
    kept: Sequence[str] | None,
    sharding: Sharding | None,
) -> Params:
    """The parameters of a model, with parts of another under their names here."""
    own, other = read(sharding), read_other(sharding)
    own = {name: params for name, params in own.items() if kept is None or name in kept}
    return own | {here: other[there] for there, here in names.items()}


def _used(parts: Parts, adapters: Sequence[tuple]) -> list[tuple[files.Adapter, blocks.Strength]]:
    """The adapters with their strengths, read for the model."""
    names = ('unet', 'text_encoder', 'text_encoder_2')
    models = {name: getattr(parts, name) for name in names if getattr(parts, name) is not None}
    used = []
    for adapter, strength, *rank in adapters:
        if not isinstance(adapter, files.Adapter):
            adapter = files.read(files.locate(str(adapter)), models)
        if rank and rank[0] is not None:
            adapter = files.truncated(adapter, rank[0])
        used.append((adapter, blocks.strength(strength)))
    return used


def _merged(
    read: Callable[[Sharding | None], Params],
    used: Sequence[tuple[files.Adapter, blocks.Strength]],
    sharding: Sharding | None,
) -> Params:
    return apply.merged(read(sharding), used)


def _live(
    read: Callable[[Sharding | None], Params],
    used: Sequence[tuple[files.Adapter, blocks.Strength]],
    sharding: Sharding | None,
) -> Params:
    params = read(sharding)
    return {**params, adapted.COLLECTION: _placed(live_factors.factors(params, used), sharding)}


def _check_texts(parts: Parts) -> None:
    """Raises ValueError for a model that reads texts, and has no text encoder."""
    if 'text' in parts.kinds and parts.text_encoder is None:
        width = denoising.conditioned_on(parts.unet).context
        raise ValueError(
            f'This model has no text encoder, and its denoising network reads texts {width} wide. Take that of '
            'another model: --text_encoder MODEL.'
        )


def _words(parts: Parts, paths: Sequence[str] | None) -> dict[str, Word]:
    """Learned words for the text encoders. Raises ValueError for a model that reads no texts."""
    if not paths:
        return {}
    if parts.text_encoder is None or 'text' not in parts.kinds:
        raise ValueError('embeddings are words of prompts, and this model reads none: leave them out.')
    found = {name: getattr(parts, name) for name in TEXT_ENCODERS}
    return learned_words.load(paths, {name: part.width for name, part in found.items() if part is not None})


def _latents(parts: Parts, pixels: int, multiple: int) -> int:
    """So many pixels in latents. Raises ValueError unless they are as many as networks can halve."""
    check_size((pixels, pixels), parts.downscale * multiple)
    return pixels // parts.downscale
