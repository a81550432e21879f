"""Folders as diffusers and transformers write them: which of the files in them are the weights.

model_index.json                    the parts of a pipeline: {"unet": ["diffusers", "UNet2DConditionModel"], ...}
unet/config.json
unet/diffusion_pytorch_model.safetensors            or .bin, or .safetensors.index.json with shards beside it
unet/diffusion_pytorch_model.fp16.safetensors       a variant; its index: <name>.index.fp16.json, or
                                                    <name>.fp16.safetensors.index.json
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

from ldm_jax.checkpoints.files import one_file, shards
from ldm_jax.checkpoints.files.tensor_file import BadFile, MappedFile, TensorFile, merged

# Only these names: the folders also hold weights of Flax, TensorFlow, ONNX and OpenVINO.
_WEIGHTS = re.compile(
    r'(?P<stem>diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>\w+))?'
    r'\.(?P<kind>safetensors|bin)(?P<index>\.index(?:\.(?P<index_variant>\w+))?\.json)?'
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file that holds a model's weights, or the index of those that do."""

    path: pathlib.Path
    stem: str
    variant: str | None
    kind: str  # 'safetensors' or 'bin'
    is_index: bool


def open_folder(
    path: str | os.PathLike, variant: str | None = None, parts: Sequence[str] | None = None
) -> TensorFile:
    """The tensors of a folder.

    Args:
        path: of a pipeline, whose keys become '<subfolder>/<key>' ('unet/conv_in.weight'), or of one model
            (config.json beside the weights), whose keys stay as they are.
        variant: 'fp16', 'non_ema', ...: the files so named, where a part has such; None: the plain files, or the
            only variant that there is.
        parts: the subfolders to read; all of the pipeline's that hold weights by default.

    Raises:
        FileNotFoundError: no such folder.
        BadFile: no weights, several to choose from, or damaged ones.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f'No folder at {str(folder)!r}.')
    chosen = _chosen(folder, parts)
    if variant is not None and not any(
        weights.variant == variant for found in chosen.values() for weights in found
    ):
        raise BadFile(f'{folder}: no weights of variant {variant!r}; have {_variants(chosen)}.')
    opened = []
    for prefix, found in chosen.items():
        weights = _choose(folder / prefix, found, variant)
        file = MappedFile(weights.path)
        opened.append((prefix, shards.read(file) if weights.is_index else one_file.read(file)))
    return merged(opened, root=folder)


def _chosen(folder: pathlib.Path, parts: Sequence[str] | None) -> dict[str, list[Weights]]:
    """Prefix of the keys ('unet/') -> the weights there are."""
    index = folder / 'model_index.json'
    here = _weights(folder)
    if here and not index.exists():
        if parts is not None:
            raise BadFile(f'{folder} holds one model, no parts; got parts {list(parts)}. Leave them out.')
        return {'': here}
    if parts is None:
        parts = _parts(folder, index)
    else:
        for part in parts:
            if not shards.is_plain(part) or not (folder / part).is_dir():
                have = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
                raise BadFile(f'{folder} has no subfolder {part!r}; have {have}.')
    chosen = {}
    for part in parts:
        found = _weights(folder / part)
        if not found:
            have = sorted(entry.name for entry in (folder / part).iterdir())
            raise BadFile(
                f'{folder / part}: no weights; expected diffusion_pytorch_model, model or pytorch_model, as '
                f".safetensors or .bin, among {have}. Fetch them, or give the other subfolders as 'parts'."
            )
        chosen[f'{part}/'] = found
    if not chosen:
        raise BadFile(f'{folder}: neither it nor its subfolders hold weights.')
    return chosen


def _parts(folder: pathlib.Path, index: pathlib.Path) -> list[str]:
    """The subfolders of the pipeline that are models: those with a config.json, or with weights."""
    if not index.exists():
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _weights(entry))
    # Others lie beside them: SDXL's repository has a second VAE. A part left out is [null, null].
    components = shards.read_json(MappedFile(index))
    named = [
        folder / name
        for name, value in components.items()
        if shards.is_plain(name) and isinstance(value, list) and any(value) and (folder / name).is_dir()
    ]
    return [part.name for part in named if (part / 'config.json').exists() or _weights(part)]


def _weights(folder: pathlib.Path) -> list[Weights]:
    found = []
    for entry in sorted(folder.iterdir()):
        match = _WEIGHTS.fullmatch(entry.name)
        if match and entry.is_file():
            variants = {match['variant'], match['index_variant']} - {None}
            if len(variants) < 2:
                variant = variants.pop() if variants else None
                found.append(
                    Weights(entry, match['stem'], variant, match['kind'], match['index'] is not None)
                )
    return found


def _choose(folder: pathlib.Path, found: Sequence[Weights], variant: str | None) -> Weights:
    """The weights of the variant where there are, else the plain ones, else the only variant's."""
    have = {weights.variant for weights in found}
    if variant in have:
        wanted = variant
    elif None in have:
        wanted = None
    elif len(have) == 1:
        wanted = next(iter(have))
    else:
        raise BadFile(f'{folder}: several variants, {sorted(map(str, have))}; choose one of them.')
    found = [weights for weights in found if weights.variant == wanted]
    kind = 'safetensors' if any(weights.kind == 'safetensors' for weights in found) else 'bin'
    found = [weights for weights in found if weights.kind == kind]
    if len({weights.stem for weights in found}) > 1:
        raise BadFile(
            f'{folder}: two models, {[weights.path.name for weights in found]}; open one by open_file.'
        )
    return min(found, key=lambda weights: weights.is_index)  # a whole file rather than shards


def _variants(chosen: dict[str, list[Weights]]) -> dict[str, list[str]]:
    return {
        prefix or '.': sorted({weights.variant or '(plain)' for weights in found})
        for prefix, found in chosen.items()
    }
