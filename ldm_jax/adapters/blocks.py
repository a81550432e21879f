"""How strongly an adapter acts, on the U-Net and the text encoders apart, and block by block.

Blocks are the U-Net's original ones: IN00 .. IN11, M00 and OUT00 .. OUT11 in Stable Diffusion 1 and 2, IN00 .. IN08,
M00 and OUT00 .. OUT08 in SDXL. BASE is the text encoders.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from ldm_jax.checkpoints.layouts.adapter_names import Layer


def _names(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, ...]:
    return ('BASE', *(f'IN{i:02}' for i in inputs), 'M00', *(f'OUT{i:02}' for i in outputs))


# As many numbers as A1111's extension for them takes: all blocks, or those with attention alone.
LISTS = {
    26: _names(range(12), range(12)),
    20: _names(range(9), range(9)),
    17: _names((1, 2, 4, 5, 7, 8), range(3, 12)),
    12: _names((4, 5, 7, 8), range(6)),
}
BLOCK = re.compile(r'(input_blocks|output_blocks|middle_block)\.(\d+)')
KINDS = {'input_blocks': 'IN', 'output_blocks': 'OUT'}


@dataclasses.dataclass(frozen=True)
class Strength:
    """Strengths of an adapter.

    unet, text: of the U-Net and of the text encoders; 0 is without, and below 0 leads away from it.
    blocks: name of a block -> what its strength is multiplied by; others are left alone.
    """

    unet: float = 1.0
    text: float = 1.0
    blocks: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, value in [('unet', self.unet), ('text', self.text), *self.blocks.items()]:
            if not math.isfinite(value):
                raise ValueError(f'The strength of an adapter must be a finite number; {name} is {value}.')

    def of(self, layer: Layer) -> float:
        """The strength for a layer."""
        own = self.unet if layer.part == 'unet' else self.text
        return own * self.blocks.get(block_of(layer), 1.0)


def strength(value: float | Sequence[float] | Strength) -> Strength:
    """A strength from a number, or a pair (U-Net, text encoders). Raises ValueError for another count."""
    if isinstance(value, Strength):
        return value
    if isinstance(value, int | float):
        return Strength(value, value)
    if len(value) != 2:
        raise ValueError(
            f'An adapter has one strength, or one of the U-Net and one of the texts; got {value}.'
        )
    return Strength(*map(float, value))


def block_weights(values: Sequence[float]) -> dict[str, float]:
    """Weights of blocks from a list, as A1111's extension for them takes it. Raises ValueError for another count."""
    if len(values) not in LISTS:
        raise ValueError(f'Block weights are {sorted(LISTS)} numbers; got {len(values)}.')
    return dict(zip(LISTS[len(values)], map(float, values), strict=True))


def block_of(layer: Layer) -> str:
    """The block of a layer: 'IN04'; the time embedding is IN00's, what ends the network OUT11's, as in merging."""
    if layer.part != 'unet':
        return 'BASE'
    match = BLOCK.match(layer.original)
    if match is None:
        return 'IN00' if layer.original.startswith(('time_embed', 'label_emb')) else 'OUT11'
    return 'M00' if match[1] == 'middle_block' else f'{KINDS[match[1]]}{int(match[2]):02}'
