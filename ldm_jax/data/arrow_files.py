"""Arrow files, as Hugging Face's `datasets` and the hub lay them out; Parquet files are rewritten as such once."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

from ldm_jax.data import index


def files(path: str | tuple[str, ...], split: str) -> list[str]:
    """The Arrow files of a path, those of Parquet files made."""
    root = pathlib.Path(path) if isinstance(path, str) else pathlib.Path()
    if (root / 'dataset_dict.json').is_file():
        splits = json.loads((root / 'dataset_dict.json').read_text())['splits']
        if split not in splits:
            raise FileNotFoundError(f'{path} has no split {split!r}; have {splits}.')
        root /= split
    if (root / 'state.json').is_file():
        return [
            str(root / file['filename'])
            for file in json.loads((root / 'state.json').read_text())['_data_files']
        ]
    found = index.files(path, ('.parquet', '.arrow'))
    splits = {_split(file): None for file in found}
    if len(splits) > 1:
        if split not in splits:
            raise FileNotFoundError(f'{path} has no files of the split {split!r}; have {sorted(splits)}.')
        found = [file for file in found if _split(file) == split]
    return [_arrow(file) if file.endswith('.parquet') else file for file in found]


def _split(file: str) -> str:
    """The split of a file by the hub's conventions: train-00000-of-00002.parquet, train/0000.parquet."""
    path = pathlib.Path(file)
    name = re.sub(r'-\d+(-of-\d+)?$', '', path.stem)
    return path.parent.name if re.fullmatch(r'[\d-]*', name) else name


def _arrow(parquet: str) -> str:
    pa = _pyarrow()
    import pyarrow.parquet

    def rewrite(target: pathlib.Path) -> None:
        with (
            pyarrow.parquet.ParquetFile(parquet) as source,
            pa.OSFile(str(target), 'wb') as sink,
            pa.ipc.new_stream(sink, source.schema_arrow) as writer,
        ):
            for batch in source.iter_batches(batch_size=100):
                writer.write_batch(batch)

    try:
        return str(index.kept('arrow', index.stamp([parquet]), rewrite, '.arrow'))
    except pa.ArrowInvalid as error:
        raise ValueError(f'{parquet} is no Parquet file, or is cut off: {error}. Fetch it again.') from None


def record_batches(path: str) -> list[Any]:
    """The record batches of an Arrow file, mapped into memory."""
    with _reading(path) as reader:
        if hasattr(reader, 'get_batch'):
            return [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return list(reader)


def schema(path: str) -> Any:
    """The columns of an Arrow file."""
    with _reading(path) as reader:
        return reader.schema


def _reading(path: str) -> Any:
    """A reader of an Arrow file of either kind: the stream that `datasets` writes, or a file with a footer."""
    pa = _pyarrow()
    mapped = pa.memory_map(path)
    try:
        return (
            pa.ipc.open_file(mapped)
            if mapped.read(6) == b'ARROW1'
            else pa.ipc.open_stream(mapped.seek(0) or mapped)
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f'{path} is no Arrow file, or is cut off: {error}.') from None


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise ImportError("Arrow and Parquet files need pyarrow: pip install 'ldm_jax[train]'.") from None
    return pyarrow
