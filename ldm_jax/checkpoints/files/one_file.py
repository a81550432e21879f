"""A single file of tensors: what it is, its content says, not its name."""

from __future__ import annotations

from ldm_jax.checkpoints.files import safetensors
from ldm_jax.checkpoints.files.pickles import torch_legacy, torch_zip
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile

# What else people have under such names, by its first bytes.
OTHERS = {
    b'\x80': 'a bare pickle, or several, which PyTorch does not write',
    b'7z\xbc\xaf\x27\x1c': 'a 7z archive',
    b'\x1f\x8b': 'a gzip file',
    b'GGUF': 'a GGUF file',
    b'\x89HDF': 'an HDF5 file, of Keras or TensorFlow',
    b'version https://git-lfs': 'a Git LFS pointer: the weights were not fetched (git lfs pull)',
    b'<': 'a web page, not what the link promised',
}


def read(file: MappedFile) -> TensorFile:
    """The file's mapping. Raises BadFile for a file that is damaged, or of an unknown kind."""
    start = file.read(0, min(file.size, 512))
    # Before the zip file, whose first letters may be a header's length: its ninth byte is never a brace.
    if start[8:9] == b'{':
        return safetensors.read(file)
    if start.startswith(b'PK\3\4'):
        return torch_zip.read(file)
    if torch_legacy.starts(start):
        return torch_legacy.read(file)
    if start[257:262] == b'ustar':
        raise file.error('it is a tar file, as PyTorch wrote before 0.1.10. Load it there and save it anew.')
    kind = next((kind for magic, kind in OTHERS.items() if start.startswith(magic)), 'of an unknown kind')
    raise file.error(f'it is {kind}; safetensors files and PyTorch checkpoints are read.')
