"""What tools/adapters.py does, command by command: lines of text."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ldm_jax import build, denoising
from ldm_jax.adapters import apply, blocks, files, low_rank, report, write
from ldm_jax.adapters.files import Adapter
from ldm_jax.checkpoints import loading, store
from ldm_jax.checkpoints.layouts import adapter_names
from ldm_jax.checkpoints.stored import Stored

PARTS = ('unet', 'text_encoder', 'text_encoder_2')


def run(command: str, paths: Sequence[str], options: Mapping[str, Any]) -> Iterator[str]:
    """Carries a command out, and says what came of it. Raises ValueError and OSError for what the user can mend."""
    if command == 'list':
        yield from _list(paths)
        return
    *sources, destination = paths
    stored = store.open_model(loading.resolve(options['model']))
    models = {part: m for part, m in build.parts(stored.settings).items() if part in PARTS}
    if command == 'extract':
        found, share = _extracted(sources, destination, stored, models, options)
        yield f'{share:.1%} of the difference is in the adapter'
    elif command == 'bake':
        used = [_used(source, models) for source in sources]
        model = loading.load(options['model'])
        params = apply.merged(model.params, used)
        store.save_model(destination, model.settings, params, options['dtype'] or 'float32')
        yield f'model written to {destination}'
        return
    elif command == 'merge':
        used = [_used(source, models) for source in sources]
        found = low_rank.merged(pathlib.Path(destination).stem, used, options['rank'])
    else:
        (source,) = _one(command, sources)
        found = files.read(files.locate(source), models)
        if command == 'resize':
            if options['rank'] is None and options['energy'] is None:
                raise ValueError('resize needs --rank or --energy.')
            found = low_rank.resized(found, options['rank'], options['energy'])
    yield _written(found, destination, stored, models, options)


def _written(
    adapter: Adapter, destination: str, stored: Stored, models: Mapping[str, Any], options: Mapping[str, Any]
) -> str:
    path = pathlib.Path(destination)
    if options['to'] == 'diffusers' and path.suffix != '.safetensors':
        path.mkdir(parents=True, exist_ok=True)
        path = path / 'pytorch_lora_weights.safetensors'
    elif path.suffix != '.safetensors':
        raise ValueError(f'An adapter is written as NAME.safetensors; got {destination!r}.')
    write.write(
        path,
        adapter,
        options['to'],
        context=denoising.conditioned_on(models['unet']).context if 'unet' in models else None,
        parameterization=stored.settings.get('parameterization', 'eps'),
        dtype=options['dtype'],
    )
    kinds = sorted({change.kind for change in adapter.changes.values()})
    return f'{len(adapter.changes)} layers ({", ".join(kinds)}) written to {path}'


def _extracted(sources, destination, stored, models, options) -> tuple[Adapter, float]:
    (source,) = _one('extract', sources)
    if options['rank'] is None:
        raise ValueError('extract needs --rank.')
    tuned, base = (loading.load(model, list(models)) for model in (source, options['model']))
    for part, spec in base.settings['models'].items():
        if part in models and tuned.settings['models'].get(part) != spec:
            raise ValueError(f'{source} is another network than {options["model"]}: its {part} differs.')
    layers = adapter_names.layers(models).values()
    name = pathlib.Path(destination).stem
    ranks = (options['rank'], options['conv_rank'], options['clamp'])
    return low_rank.extracted(name, layers, tuned.params, base.params, *ranks)


def _one(command: str, sources: Sequence[str]) -> Sequence[str]:
    if len(sources) != 1:
        raise ValueError(f'{command} takes one source and a destination; got {len(sources)} sources.')
    return sources


def _used(word: str, models: Mapping[str, Any]) -> apply.Use:
    """An adapter with its strength, of 'path' or 'path:0.8'."""
    path, mark, number = word.rpartition(':')
    try:
        strength = float(number) if mark else 1.0
    except ValueError:
        path, mark, strength = word, '', 1.0
    return files.read(files.locate(path if mark else word), models), blocks.strength(strength)


def _list(paths: Sequence[str]) -> Iterator[str]:
    paths_found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise FileNotFoundError(f'There is nothing at {str(path)!r}.')
        below = sorted(each for each in path.rglob('*') if each.suffix in files.SUFFIXES)
        paths_found += below if path.is_dir() else [path]
    yield 'name  family  tensors  ranks  hash  MB'
    for path in paths_found:
        try:
            row = report.describe(path)
        except ValueError as error:
            yield f'{path.name}: {error}'
            continue
        ranks = ','.join(map(str, row['ranks'])) or '-'
        yield f'{row["name"]}  {row["family"]}  {row["tensors"]}  {ranks}  {row["hash"]}  {row["megabytes"]}'
