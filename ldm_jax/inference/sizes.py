"""Facts of an image's making, which SDXL and its refiner are conditioned on; and the sizes that a model can make."""

from __future__ import annotations

import dataclasses

GOOD, BAD = 6.0, 2.5  # aesthetic scores of prompts and of negative prompts, from the original code


@dataclasses.dataclass(frozen=True)
class Sizes:
    """In training these were facts of an image, so they steer sampling: a small original blurs it, a crop moves it.

    Attributes:
        original: (H, W) before it was scaled for training; by default that of the image being made.
        crop: (top, left) of what was cut out of the scaled image; (0, 0) centres what is shown.
        target: (H, W) of the cut; by default that of the image being made. Only SDXL's base has it.
        aesthetic_score: how good it looks, about 2 to 8; only the refiner has it. None is 6.0, and 2.5 beside a
            negative prompt.

    Ref: Podell et al. 2023, arXiv:2307.01952, section 2.2.
    Raises ValueError for a size that is empty or not of two numbers.
    """

    original: tuple[int, int] | None = None
    crop: tuple[int, int] = (0, 0)
    target: tuple[int, int] | None = None
    aesthetic_score: float | None = None

    def __post_init__(self):
        for name in ('original', 'crop', 'target'):
            value = getattr(self, name)
            if value is not None and (len(value) != 2 or (name != 'crop' and min(value) < 1)):
                shape = '(top, left)' if name == 'crop' else '(H, W) of at least one pixel'
                raise ValueError(f'{name} must be {shape}; got {value}.')

    def numbers(self, count: int, size: tuple[int, int], negative: bool = False) -> tuple[float, ...]:
        """The numbers of an image of size (H, W), 6 (base) or 5 (refiner); negative: for negative prompts."""
        score = self.aesthetic_score
        if score is None:
            score = BAD if negative else GOOD
        last = tuple(self.target or size) if count == 6 else (score,)
        return (*(self.original or size), *self.crop, *last)


def check_size(size: tuple[int, int], multiple: int = 8) -> None:
    """Raises ValueError, with the nearest size that works, unless H and W are multiples of the first stage's factor."""
    if any(side < 1 or side % multiple for side in size):
        nearest = tuple(max(round(side / multiple), 1) * multiple for side in size)
        raise ValueError(
            f'Size {size[0]} x {size[1]} (height x width) is not made of multiples of {multiple}. '
            f'The nearest that is: {nearest[0]} x {nearest[1]}.'
        )
