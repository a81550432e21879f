"""One function behind everything that needs a model: whatever names it, its parts and parameters come back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

from ldm_jax import atomic, build
from ldm_jax.cache import cache_folder
from ldm_jax.checkpoints import hub, open_checkpoint, store
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.checkpoints.choice import Choice, check_choice, chosen
from ldm_jax.checkpoints.convert import convert
from ldm_jax.types import PyTree

FORMAT = 2  # of converted checkpoints; another number makes the cache convert anew


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model.

    Attributes:
        settings: in the schema of configs.
        parts: part -> network.
        params: part -> parameters, of the same parts.
        path: of the model directory that they were read from.
    """

    settings: dict[str, Any]
    parts: dict[str, nn.Module]
    params: dict[str, PyTree]
    path: str


def load(
    model: str,
    parts: Sequence[str] | None = None,
    *,
    dtype: str | None = 'float32',
    shardings: jax.sharding.Sharding | store.Shardings | None = None,
    verify: bool = True,
    choice: Choice = Choice(),  # noqa: B008 (Choice is frozen)
    revision: str | None = None,
) -> Loaded:
    """The parts and parameters of a model, converted first where it is not ours.

    Args:
        model: a shipped model ('emoji32'), a model directory, a public checkpoint file, a diffusers folder, or
            the id of a repository on the Hugging Face hub.
        parts: which ones to read; all by default.
        dtype: of the floating-point parameters; None for that on disk.
        shardings: where each array goes, as in `store.load_model`.
        verify: compare each array with its checksum.
        choice: what a public checkpoint leaves open.
        revision: of a repository on the hub.

    Raises:
        FileNotFoundError: nothing of that name; the message says what may be given.
        ValueError: not a checkpoint that is known, or damaged.
        ConnectionError: the hub cannot be reached.

    A converted checkpoint is kept by its content in the folder that the environment variable LDM_JAX_CACHE
    names (~/.cache/ldm_jax by default), so that it is converted once, wherever it lies and whatever it is called.
    """
    stored = store.open_model(resolve(model, choice, revision), verify)
    return load_stored(stored, model, parts, dtype=dtype, shardings=shardings)


def load_stored(
    stored: store.Stored,
    model: str,
    parts: Sequence[str] | None = None,
    *,
    dtype: str | None = 'float32',
    shardings: jax.sharding.Sharding | store.Shardings | None = None,
) -> Loaded:
    """`load` of a model whose directory `resolve` found, and which is open."""
    names = chosen(parts, stored.parts, model)
    directory = str(stored.directory)
    try:
        settings, params = store.load_stored(stored, names, dtype=dtype, shardings=shardings)
    except Damaged as error:
        if pathlib.Path(store.find(model)).absolute() == stored.directory:
            raise  # it is not a conversion that can be made again
        raise Damaged(f'{error} It is the conversion of {model}: delete it, and load again.') from error
    networks = {part: network for part, network in build.parts(settings).items() if part in params}
    return Loaded(settings, networks, params, directory)


def resolve(
    model: str,
    choice: Choice = Choice(),  # noqa: B008 (Choice is frozen)
    revision: str | None = None,
) -> str:
    """The model directory of what `load` takes: its own, or that of its conversion, made if need be."""
    place = store.find(model)
    if store.is_model(place):
        check_choice(place, choice)
        return place
    place, origin = hub.locate(place, revision, choice.variant)
    key = _key(place, choice)
    target = cache_folder() / 'converted' / key
    if not store.is_model(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not store.is_model(target):  # another process may have made it meanwhile
                convert(place, str(target), choice=dataclasses.replace(choice, parts=None), origin=origin)
    return str(target)


def _key(path: str, choice: Choice) -> str:
    """A digest of the content of the files and of the choice made among it, wherever they lie."""
    digests = [_digest(file) for file in open_checkpoint.files(path, choice.variant)]
    chosen = [
        choice.prediction,
        choice.weights,
        choice.model and json.dumps(dict(choice.model), sort_keys=True),
        list(choice.ignore),
    ]
    return hashlib.sha256(json.dumps([FORMAT, digests, chosen]).encode()).hexdigest()[:32]


def _digest(path: pathlib.Path) -> str:
    """A file's SHA-256, remembered for as long as its size and times stay."""
    stat = path.stat()
    memory = cache_folder() / 'digests' / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text())
        if known['state'] == state:
            return known['sha256']
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    memory.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(memory, json.dumps({'state': state, 'sha256': digest}))
    return digest


@contextlib.contextmanager
def _locked(target: pathlib.Path) -> Iterator[None]:
    """One process at a time converts into the target; the others wait for it."""
    from filelock import FileLock

    with FileLock(target.with_name(target.name + '.lock')):
        yield
