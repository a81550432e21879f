"""Checkpoint layouts as invertible tables: torch tensors by key <-> Flax parameters by path.

A rule pairs tensors of a torch file with leaves of a parameter tree through a bijection, so that one table
imports and exports. The builders below name modules ('mid.block_1.conv1' <-> 'mid_res_0/conv1') and return
the rules of their tensors:

    conv       weight OIHW <-> kernel HWIO
    dense      weight [out, in] <-> kernel [in, out]; `window` counts trailing axes of size 1 in torch's
               tensor, for 1x1 convolutions that are matrices here
    norm       weight, bias <-> scale, bias
    embed      weight <-> embedding
    tensor     as it is
    fused_qkv  one [3 D, D] tensor <-> three kernels
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ldm_jax.types import PyTree

Arrays = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Tensors of a torch file that correspond to leaves of a parameter tree, and the maps both ways."""

    torch: tuple[str, ...]
    flax: tuple[str, ...]
    to_flax: Callable[[Arrays], Arrays]
    to_torch: Callable[[Arrays], Arrays]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The rules of one kind of file for one model, and the keys that it may hold without use.

    Each key and each path belongs to one rule; ValueError names one that comes twice.
    ignore: key -> reason; a key that ends with '*' is a prefix.
    """

    rules: tuple[Rule, ...]
    ignore: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for side in ('torch', 'flax'):
            counts = Counter(name for rule in self.rules for name in getattr(rule, side))
            twice = sorted(name for name, count in counts.items() if count > 1)
            if twice:
                raise ValueError(f'Two rules of a layout name the same {side} side: {listed(twice)}.')

    def ignored(self, key: str) -> str | None:
        """Why a key is left unused, or None when it is not to be ignored."""
        for pattern, reason in self.ignore.items():
            if key == pattern or (pattern.endswith('*') and key.startswith(pattern[:-1])):
                return reason
        return None


def unflatten(leaves: Mapping[str, np.ndarray]) -> PyTree:
    """Leaves by path ('a/b/kernel') to nested dicts: the inverse of `trees.named`."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *folders, name = path.split('/')
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def prefixed(layout: Layout, torch: str = '', flax: str = '') -> Layout:
    """The layout with 'first_stage_model.', say, before each torch key, and 'vae/' before each path."""
    rules = tuple(
        dataclasses.replace(
            rule,
            torch=tuple(torch + key for key in rule.torch),
            flax=tuple(flax + path for path in rule.flax),
        )
        for rule in layout.rules
    )
    return Layout(rules, {torch + key: reason for key, reason in layout.ignore.items()})


def tensor(torch: str, flax: str) -> list[Rule]:
    """One tensor that both sides store alike; the names are those of the tensor and the leaf themselves."""
    return [Rule((torch,), (flax,), _same, _same)]


def transposed(torch: str, flax: str) -> list[Rule]:
    """One matrix that the two sides store transposed; the names are those of the tensor and the leaf."""
    return [Rule((torch,), (flax,), lambda a: (a[0].T,), lambda a: (a[0].T,))]


def conv(torch: str, flax: str, bias: bool = True) -> list[Rule]:
    """A 2-D convolution."""
    kernel = Rule(
        (f'{torch}.weight',),
        (f'{flax}/kernel',),
        lambda a: (a[0].transpose(2, 3, 1, 0),),
        lambda a: (a[0].transpose(3, 2, 0, 1),),
    )
    return [kernel, *_bias(torch, flax, bias)]


def dense(torch: str, flax: str, bias: bool = True, window: int = 0) -> list[Rule]:
    """A linear layer, or a convolution of size 1 over `window` axes."""
    ones = (1,) * window

    def to_flax(arrays):
        weight = arrays[0]
        if weight.shape[2:] != ones:
            raise ValueError(f'expected {2 + window} axes, the last {window} of size 1')
        return (weight.reshape(weight.shape[:2]).T,)

    def to_torch(arrays):
        return (arrays[0].T.reshape(*arrays[0].shape[::-1], *ones),)

    return [Rule((f'{torch}.weight',), (f'{flax}/kernel',), to_flax, to_torch), *_bias(torch, flax, bias)]


def norm(torch: str, flax: str) -> list[Rule]:
    """GroupNorm or LayerNorm."""
    return [*tensor(f'{torch}.weight', f'{flax}/scale'), *tensor(f'{torch}.bias', f'{flax}/bias')]


def embed(torch: str, flax: str) -> list[Rule]:
    """An embedding table."""
    return tensor(f'{torch}.weight', f'{flax}/embedding')


def fused_qkv(
    weight: str,
    flax: Sequence[str],
    num_heads: int,
    *,
    bias: str | None = None,
    head_major: bool,
    window: int = 0,
) -> list[Rule]:
    """One [3 D, D] projection as three.

    Args:
        weight, bias: the fused tensors' keys.
        flax: the three modules' paths, q, k, v.
        num_heads: of the attention; matters when head_major.
        head_major: the rows are q, k, v of the first head, then of the second (guided-diffusion's legacy
            order); otherwise all q, all k, all v.
        window: trailing axes of size 1 of the fused weight.
    """

    def split(array):  # [3 D, ...] -> three [D, ...]
        if array.shape[0] % (3 * num_heads):
            raise ValueError(f'{array.shape[0]} rows do not split into q, k, v of {num_heads} heads')
        rest = array.shape[1:]
        if head_major:
            parts = array.reshape(num_heads, 3, -1, *rest).swapaxes(0, 1)
        else:
            parts = array.reshape(3, num_heads, -1, *rest)
        return tuple(part.reshape(-1, *rest) for part in parts)

    def join(parts):
        rest = parts[0].shape[1:]
        stacked = np.stack([part.reshape(num_heads, -1, *rest) for part in parts])  # [3, N, K, ...]
        return (stacked.swapaxes(0, 1) if head_major else stacked).reshape(-1, *rest)

    ones = (1,) * window

    def kernels(arrays):
        matrix = arrays[0].reshape(arrays[0].shape[:2])
        return tuple(part.T for part in split(matrix))

    def fused(arrays):
        joined = join([array.T for array in arrays])
        return (joined.reshape(*joined.shape, *ones),)

    rules = [Rule((weight,), tuple(f'{path}/kernel' for path in flax), kernels, fused)]
    if bias is not None:
        rules.append(
            Rule((bias,), tuple(f'{path}/bias' for path in flax), lambda a: split(a[0]), lambda a: (join(a),))
        )
    return rules


def _same(arrays: Arrays) -> Arrays:
    return arrays


def _bias(torch: str, flax: str, bias: bool) -> list[Rule]:
    return tensor(f'{torch}.bias', f'{flax}/bias') if bias else []


def listed(keys: Sequence[str], most: int = 5) -> str:
    """Keys as an error shows them: the first ones, and how many more there are."""
    if not keys:
        return 'none'
    more = f' and {len(keys) - most} more' if len(keys) > most else ''
    return ', '.join(keys[:most]) + more
