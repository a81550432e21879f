"""One model in several files, and the index that says which holds what: *.index.json.

{"metadata": {...}, "weight_map": {key: file beside the index}}
"""

from __future__ import annotations

import json
import os
from typing import Any

from ldm_jax.checkpoints.files import one_file
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile, merged, quoted

MAX_JSON = 2 << 20  # bytes; an index of two thousand keys has 200,000


def read(index: MappedFile) -> TensorFile:
    """The shards' tensors as one mapping.

    Raises BadFile, naming the key and the files, for a shard that is not there or not beside the index, a key
    that its shard lacks (though another may have it), and one that the index does not put where it is.
    """
    weight_map = read_json(index).get('weight_map')
    if not isinstance(weight_map, dict) or not weight_map:
        raise index.error("it has no 'weight_map' of keys to files; it is no index of shards.")
    first: dict[str, str] = {}  # shard -> a key that it should hold
    for key, name in weight_map.items():
        if not is_plain(name):
            raise index.error(
                f'{quoted(key)} is said to be in {quoted(str(name))}; shards lie beside the index.'
            )
        first.setdefault(name, key)
    shards: dict[str, TensorFile] = {}
    for name, key in first.items():
        path = index.path.with_name(name)
        if not path.is_file():
            raise index.error(
                f'{quoted(key)} is in {quoted(name)}, which is not there. Fetch all the shards.'
            )
        shards[name] = one_file.read(MappedFile(path))
    holders: dict[str, str] = {}
    for name, shard in shards.items():
        for key in shard:
            if key in holders:
                raise index.error(f'{quoted(key)} is in both {quoted(holders[key])} and {quoted(name)}.')
            holders[key] = name
            if key not in weight_map:
                raise index.error(f'{quoted(key)} is in {quoted(name)} and not in the index.')
    for key, name in weight_map.items():
        if holders.get(key) != name:
            where = f'in {quoted(holders[key])}' if key in holders else 'in no shard'
            raise index.error(
                f'{quoted(key)} should be in {quoted(name)} and is {where}. '
                'Were the shards renamed, or are they of two models? Fetch them again.'
            )
    return merged([('', shard) for shard in shards.values()], [index])


def is_plain(name: Any) -> bool:
    """Whether a name out of a file is that of a file in the same folder, on any system."""
    return (
        isinstance(name, str)
        and name not in ('', '.', '..')
        and not set(name) & set('/\\:\0')
        and os.path.basename(name) == name
    )


def read_json(file: MappedFile) -> dict[str, Any]:
    """A small JSON object. Raises BadFile when it is none, is too large, or has a key twice."""
    if file.size > MAX_JSON:
        raise file.error(f'{file.size} bytes of JSON; at most {MAX_JSON} are read.')

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError('a key comes twice')
        return found

    try:
        value = json.loads(file.read(0, file.size).decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise file.error(f'it is not valid JSON: {str(error)[:200]}.') from None
    if not isinstance(value, dict):
        raise file.error(f'its JSON is a {type(value).__name__}; expected an object.')
    return value
