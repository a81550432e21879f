"""What people have, opened: a checkpoint of any kind as settings and leaves.

a directory of ours        settings.json and Orbax trees
a single file              CompVis' and Stability's .ckpt and .safetensors, a part alone, half of a tiny autoencoder
a folder of diffusers      of a pipeline, or of one model
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ldm_jax import build, trees
from ldm_jax.checkpoints import store, take_parts
from ldm_jax.checkpoints.apply_layout import Imported
from ldm_jax.checkpoints.choice import Choice, check_choice, chosen
from ldm_jax.checkpoints.detection import identify
from ldm_jax.checkpoints.detection import sidecar as yaml_fields
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.files.pickles import hostile
from ldm_jax.checkpoints.files.tensor_file import TensorFile
from ldm_jax.checkpoints.layouts import diffusers_folder, single_file
from ldm_jax.checkpoints.layouts.rules import Layout, listed
from ldm_jax.checkpoints.lazy_arrays import Joined, Leaves, Only, part_of

Settings = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    Attributes:
        kind: 'orbax', 'single file' or 'diffusers folder'.
        settings: in the schema of configs, with the chosen parts.
        leaves: '<part>/<path>' -> parameters; a file's are checked to be finite as they are read.
        ignored: key of the file -> why it is left out.
        notes: what else a report tells: which averages there are, what a pickle wanted and did not get.
        digests: file name -> SHA-256; reads all of them.
    """

    kind: str
    settings: Settings
    leaves: Leaves
    ignored: Mapping[str, str]
    notes: Mapping[str, Any]
    digests: Callable[[], dict[str, str]]


@contextlib.contextmanager
def opened(path: str, choice: Choice) -> Iterator[Source]:
    """The checkpoint at a path.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is something else, or not what its kind is supposed to be, or leaves a question open; or a
            pickle in it would run programs if it could.
    """
    place = pathlib.Path(path)
    if store.is_model(place):
        yield _ours(place, choice)
    elif place.is_dir():
        with reader.open_folder(place, variant=choice.variant, parts=None) as tensors:
            yield _public(_folder, place, tensors, choice)
    elif place.exists():
        with _open_single(place) as tensors:
            yield _public(_single, place, tensors, choice)
    else:
        raise _nothing(path)


def with_part_of(source: Source, group: str, path: str, stack: contextlib.ExitStack) -> Source:
    """A checkpoint with a text encoder or a first stage from another one, which closes with the stack.

    Raises as `opened` and `take_parts.taken`.
    """
    # What the other's U-Net predicts does not matter.
    choice = Choice() if store.is_model(path) else Choice(prediction='eps')
    other = stack.enter_context(opened(path, choice))
    parts = take_parts.parts_of(group, other.settings, path)
    settings = take_parts.taken(source.settings, group, other.settings, path)
    take_parts.check_fit(settings, group, path)
    kept = tuple(part for part in source.settings['models'] if part not in take_parts.GROUPS[group][0])
    leaves = Joined((Only(source.leaves, kept), Only(other.leaves, parts)))
    notes = {**source.notes, f'{group} of': {'name': pathlib.Path(path).name, 'sha256': other.digests()}}
    return dataclasses.replace(source, settings=settings, leaves=leaves, notes=notes)


def files(path: str, variant: str | None = None) -> list[pathlib.Path]:
    """The files that reading a public checkpoint depends on, those of its settings included. Raises as `opened`."""
    place = pathlib.Path(path)
    if not place.exists():
        raise _nothing(path)
    if place.is_dir():
        with reader.open_folder(place, variant=variant) as tensors:
            return [*tensors.paths, *sorted(place.rglob('*.json')), *sorted(place.rglob('*.txt'))]
    with _open_single(place) as tensors:
        beside = yaml_fields.path_of(place)
        return [*tensors.paths, *([beside] if beside else [])]


def _ours(path: pathlib.Path, choice: Choice) -> Source:
    stored = store.open_model(path)
    check_choice(str(path), choice)
    parts = chosen(choice.parts, stored.parts, str(path))
    return Source(
        kind='orbax',
        settings=_only(stored.settings, parts),
        leaves=Only(stored, parts),
        ignored={},
        notes={},
        digests=lambda: {store.CHECKSUMS: hashlib.sha256((path / store.CHECKSUMS).read_bytes()).hexdigest()},
    )


def _open_single(path: pathlib.Path) -> TensorFile:
    other = reader.sibling(path)
    if other is None:
        tensors = reader.open_file(path)
        reader.refuse_half(path.name, tensors.keys())
        return tensors
    first, second = sorted((path, other), key=lambda file: 'decoder' in file.name)
    return reader.open_pair(first, second)


def _public(
    open_as: Callable[..., Source], path: pathlib.Path, tensors: TensorFile, choice: Choice
) -> Source:
    """A public checkpoint without the keys that are to be left out; errors name the patterns too."""
    ignored: dict[str, str] = {}
    for pattern in choice.ignore:
        keys = fnmatch.filter(tensors, pattern)
        if not keys:
            raise ValueError(
                f'{path.name} has no key that fits --ignore {pattern!r}; it begins with {sorted(tensors)[:5]}.'
            )
        ignored |= dict.fromkeys(keys, f'left out by --ignore {pattern!r}')
    try:
        return open_as(path, tensors.without(ignored), choice, ignored)
    except ValueError as error:
        if not ignored:
            raise
        raise ValueError(f'{error} ({"; ".join(dict.fromkeys(ignored.values()))})') from error


def _single(path: pathlib.Path, tensors: TensorFile, choice: Choice, ignored: Mapping[str, str]) -> Source:
    model = choice.model
    if model is None and store.SETTINGS in tensors.metadata:
        model = json.loads(tensors.metadata[store.SETTINGS])  # of our own export
    settings = identify.identify(
        tensors.specs,
        metadata=tensors.metadata,
        scalars=tensors.scalars,
        read=tensors.__getitem__,
        sidecar=yaml_fields.read(path),
        prediction=choice.prediction,
        model=model,
        name=path.name,
    )
    layout = single_file.layout(settings, tensors.specs, weights=choice.weights)
    notes = {'ema': single_file.ema(settings, tensors.specs), 'weights': choice.weights}
    return _imported('single file', path, tensors, settings, layout, choice, notes, ignored)


def _folder(path: pathlib.Path, tensors: TensorFile, choice: Choice, ignored: Mapping[str, str]) -> Source:
    if choice.weights == 'ema':
        raise ValueError(
            f"{path} is a diffusers folder; weights='ema' is for checkpoints of training. Name the folder's averages "
            "by their variant, such as variant='ema', if it has them."
        )
    settings = (
        dict(choice.model) if choice.model else diffusers_settings.read_settings(path, choice.prediction)
    )
    layout = diffusers_folder.layout(settings, tensors.specs)
    notes = {} if choice.variant is None else {'variant': choice.variant}
    return _imported('diffusers folder', path, tensors, settings, layout, choice, notes, ignored)


def _imported(
    kind: str,
    path: pathlib.Path,
    tensors: TensorFile,
    settings: Settings,
    layout: Layout,
    choice: Choice,
    notes: Mapping[str, Any],
    ignored: Mapping[str, str],
) -> Source:
    if wanted := hostile.names(tensors.refused):
        raise ValueError(
            f'{path.name} is a pickle that was made to do harm: it asks for {listed(wanted)}, which no saved model '
            'needs. Nothing of it was run, and nothing is converted. Do not open it with anything else; get the '
            'weights from another place, as .safetensors.'
        )
    parts = chosen(choice.parts, list(settings['models']), path.name)
    settings, layout = _only(settings, parts), _narrowed(layout, parts, tensors.specs)
    expected = check_built(settings, str(path))
    try:
        leaves = Imported(layout, tensors.__getitem__, tensors.specs, expected, finite=True)
    except ValueError as error:
        raise ValueError(
            f'{path.name} is not the model that it looks like ({_named(kind, tensors)}). {error}'
        ) from error
    if tensors.refused:
        notes = {**notes, 'refused': list(tensors.refused)}
    return Source(kind, settings, leaves, {**leaves.ignored, **ignored}, notes, tensors.sha256)


def check_built(settings: Settings, where: str) -> dict[str, Any]:
    """'<part>/<path>' -> shape of every parameter of a model, once all that its settings describe has been built.

    Raises ValueError, naming the place and the setting, for one that cannot be.
    """
    found: dict[str, Any] = {}
    for key in [*build.COMPONENTS, *settings['models']]:
        try:
            if key in settings['models']:
                found |= trees.named({key: trees.shapes(build.build('models', settings['models'][key]))})
            elif settings.get(key) is not None:
                build.build(build.COMPONENTS[key], settings[key])
        except Exception as error:  # numbers of other people's files fail in JAX and Flax in every way
            text = str(error).partition('\n')[0][:300]
            raise ValueError(f'{where}: its {key} cannot be built: {text}') from error
    return found


def _named(kind: str, tensors: TensorFile) -> str:
    """The layout, as errors call it: in a single file each part has its own names."""
    if kind != 'single file':
        return kind
    places = single_file.places(tensors.specs)
    return f'{kind}: ' + ', '.join(f'{part} in {place.names} names' for part, place in places.items())


def _only(settings: Settings, parts: Sequence[str]) -> Settings:
    """The settings with these parts."""
    models = {part: spec for part, spec in settings['models'].items() if part in parts}
    return {**settings, 'models': models}


def _narrowed(layout: Layout, parts: Sequence[str], keys: Iterable[str]) -> Layout:
    """The layout with these parts; the keys of the others, and unknown ones far from these, are left out for it."""
    rules = tuple(rule for rule in layout.rules if part_of(rule.flax[0]) in parts)
    others = {
        key: f'of {part_of(rule.flax[0])}, which was not asked for'
        for rule in layout.rules
        if part_of(rule.flax[0]) not in parts
        for key in rule.torch
    }
    if others:  # an unknown key beside those of a part may still mean that it is another model
        near = {_first_name(key) for rule in rules for key in rule.torch}
        unknown = [key for key in keys if key not in others and layout.ignored(key) is None]
        others |= {
            key: 'unknown, and of none of the parts that were asked for'
            for key in unknown
            if _first_name(key) not in near
        }
    return Layout(rules, {**layout.ignore, **others})


def _first_name(key: str) -> str:
    return re.split('[./]', key, maxsplit=1)[0]


def _nothing(path: str) -> FileNotFoundError:
    return FileNotFoundError(
        f'There is nothing at {str(path)!r}. Give a .ckpt or .safetensors file, a diffusers folder, a model '
        'directory, a shipped model (emoji32), or the id of a repository on the Hugging Face hub (owner/name).'
    )
