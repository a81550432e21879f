"""How many transformer blocks a U-Net's attentions have, from one number for each to the fewest that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fields(down: Sequence[Sequence[int]], up: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The fields depth and depth_up of a U-Net, the latter where the way up does not mirror the way down.

    down, up: for each level the depths behind its residual blocks, in the order of computation.
    """
    short = [_short(each) for each in down], [_short(each) for each in up]
    if short[0] == short[1] and all(isinstance(depth, int) for depth in short[0]):
        return dict(depth=short[0])
    return dict(depth=short[0], depth_up=short[1])


def _short(depths: Sequence[int]) -> int | list[int]:
    return depths[0] if len(set(depths)) == 1 else list(depths)
