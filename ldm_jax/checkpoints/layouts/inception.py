"""Files of Inception v3 of 2015-12-05 (model inception), which FID is measured with.

graph          NVIDIA's TorchScript and its copies, named as the original graph is; they have no head
pytorch_fid    pytorch-fid's and torch-fidelity's state dict, named as torchvision's
"""

from __future__ import annotations

from collections.abc import Iterator

from ldm_jax.build import unknown
from ldm_jax.checkpoints.layouts.rules import Layout, Rule, tensor, transposed
from ldm_jax.models import inception
from ldm_jax.models.inception import BLOCKS, STEM

# A tensor of each kind of file, by which `loss_networks` knows it; behind a prefix of a file's own.
MARKS = {'graph': 'layers.mixed_10.tower_2_conv.weight', 'pytorch_fid': 'Mixed_7c.branch_pool.conv.weight'}
HEAD = 'fc.weight'
SCALES = '.bn.weight'  # of pytorch_fid's batch norms, all 1
STEM_NAMES = ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1', 'Conv2d_4a_3x3')
BLOCK_NAMES = ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
A = {'conv': 'branch1x1', 'tower': 'branch5x5', 'tower_1': 'branch3x3dbl', 'tower_2': 'branch_pool'}
BRANCHES = (
    *(A,) * 3,
    {'conv': 'branch3x3', 'tower': 'branch3x3dbl'},
    *({'conv': 'branch1x1', 'tower': 'branch7x7', 'tower_1': 'branch7x7dbl', 'tower_2': 'branch_pool'},) * 4,
    {'tower': 'branch3x3', 'tower_1': 'branch7x7x3'},
    *({'conv': 'branch1x1', 'tower': 'branch3x3', 'tower_1': 'branch3x3dbl', 'tower_2': 'branch_pool'},) * 2,
)


def layout(model: inception.Model, names: str = 'graph') -> Layout:
    """The layout of a file. Raises ValueError for other names than those above."""
    if names not in MARKS:
        raise unknown('Inception names', names, sorted(MARKS))
    rules, ignore = [], {'fc.bias': 'scores are taken of logits without it'}
    if model.head:
        rules += transposed(HEAD, 'head')
    else:
        ignore[HEAD] = 'the head, which this model lacks'
    theirs = _graph() if names == 'graph' else _pytorch_fid()
    statistics = ('beta', 'mean', 'var') if names == 'graph' else ('bias', 'running_mean', 'running_var')
    for torch, flax in theirs:
        conv, norm = (torch, torch) if names == 'graph' else (f'{torch}.conv', f'{torch}.bn')
        rules.append(_kernel(f'{conv}.weight', f'{flax}/kernel'))
        for key, leaf in zip(statistics, ('bias', 'mean', 'var'), strict=True):
            rules += tensor(f'{norm}.{key}', f'{flax}/{leaf}')
        if names == 'pytorch_fid':
            ignore[torch + SCALES] = 'all 1: the network has no scale'
            ignore[f'{norm}.num_batches_tracked'] = 'a count of training'
    return Layout(tuple(rules), ignore)


def _kernel(torch: str, flax: str) -> Rule:
    return Rule(
        (torch,),
        (flax,),
        lambda a: (a[0].transpose(2, 3, 1, 0),),
        lambda a: (a[0].transpose(3, 2, 0, 1),),
    )


def _convs() -> Iterator[tuple[int, str]]:
    """(place in BLOCKS, name of a convolution) of all blocks."""
    for i, block in enumerate(BLOCKS):
        for branch in (*block.branches, *block.split):
            yield from ((i, conv.name) for conv in branch)


def _graph() -> Iterator[tuple[str, str]]:
    for conv in STEM:
        yield f'layers.{conv.name}', conv.name
    for i, name in _convs():
        block = BLOCKS[i]
        # The last two blocks are flat in the file; in the others a tower is a module.
        theirs = name if block.split or name == 'conv' else name.replace('_conv', '.conv', 1)
        yield f'layers.{block.name}.{theirs}', f'{block.name}/{name}'


def _pytorch_fid() -> Iterator[tuple[str, str]]:
    for conv, name in zip(STEM, STEM_NAMES, strict=True):
        yield name, conv.name
    for i, name in _convs():
        tower, _, rest = name.partition('_conv') if name != 'conv' else ('conv', '', '')
        split = tower.endswith('_mixed')
        tower = tower.removesuffix('_mixed')
        theirs = BRANCHES[i][tower]
        place = int(rest.removeprefix('_') or 0)
        if split:
            theirs += f'_{3 if tower == "tower_1" else 2}' + 'ab'[place]
        elif tower.startswith('tower') and theirs != 'branch_pool':
            theirs += f'_{place + 1}'
        yield f'Mixed_{BLOCK_NAMES[i]}.{theirs}', f'{BLOCKS[i].name}/{name}'
