"""PyTorch's files since 1.6: a zip file of one folder with a pickle and the tensors' bytes, stored plain.

    <root>/data.pkl     the pickle; where a tensor's bytes would be, it names a storage
    <root>/data/<key>   a storage's bytes
    <root>/byteorder    'little', in files since 2.1
    <root>/code/        TorchScript, a program with its weights: these are read by attribute, the program is not run

Ref: torch/serialization.py, `_save` and `_load`; caffe2/serialize/inline_container.h.
"""

from __future__ import annotations

from ldm_jax.checkpoints.files import state_dict, zip_archive
from ldm_jax.checkpoints.files.pickles.allowed import Storage
from ldm_jax.checkpoints.files.pickles.unpickler import MAX_PICKLE, Unpickler
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile, quoted

SCRIPTED = (
    '__torch__.',
    'torch.jit.',
)  # the classes of a TorchScript's modules, and of their lists of numbers


def read(file: MappedFile) -> TensorFile:
    """The file's mapping. Raises BadFile when it is damaged, or not a checkpoint of tensors by name."""
    members = zip_archive.members(file)
    root = _root(file, members)
    if f'{root}data.pkl' not in members:
        raise file.error(f'its folder {quoted(root)} has no data.pkl; it is a zip file but none of PyTorch.')
    if f'{root}byteorder' in members:
        order = zip_archive.read(file, members[f'{root}byteorder'], 16).strip()
        if order != b'little':
            raise file.error(
                f'its numbers are {order!r}-endian; only little-endian ones are read. Save it anew.'
            )
    unpickler = Unpickler(file, zip_archive.read(file, members[f'{root}data.pkl'], MAX_PICKLE))
    value = unpickler.load()
    if unpickler.position != len(unpickler.data):
        raise file.error('something follows the pickle in data.pkl. Do not trust it.')
    refused = unpickler.refused
    if f'{root}constants.pkl' in members:
        value = state_dict.of_modules(file, value)
        refused = {name: None for name in refused if not name.startswith(SCRIPTED)}

    def locate(storage: Storage) -> int:
        member = members.get(f'{root}data/{storage.key}')
        if member is None:
            raise file.error(f'storage {quoted(storage.key)} is named and not there. It is damaged.')
        size = storage.total * storage.dtype.itemsize
        if member.method != zip_archive.STORED or member.size != size:
            raise file.error(
                f'{quoted(member.name)} is compressed or has {member.size} bytes for {size}. '
                'PyTorch stores tensors plain: load it there and save it anew.'
            )
        return member.start

    return state_dict.tensor_file(file, value, refused, locate)


def _root(file: MappedFile, members: dict[str, zip_archive.Member]) -> str:
    """The one folder that holds everything, with its slash."""
    roots = {name.partition('/')[0] for name in members}
    for name in members:
        if '\\' in name or not {'', '.', '..'}.isdisjoint(name.removesuffix('/').split('/')):
            raise file.error(f'a member is called {quoted(name)}, which leaves the folder. Do not trust it.')
        if '/' not in name:
            raise file.error(f'{quoted(name)} lies in no folder; it is a zip file but none of PyTorch.')
    if len(roots) != 1:
        raise file.error(
            f'expected one folder in the archive, found {len(roots)}: {[quoted(r) for r in sorted(roots)[:4]]}.'
        )
    return f'{roots.pop()}/'
