"""Adapters that make a model sample in a few steps: LCM, Turbo, Lightning, Hyper-SD, and the settings that they need.

Their names say which they are, as their authors published them; nothing in their tensors does.
Ref: Luo et al. 2023, arXiv:2311.05556; Lin et al. 2024, arXiv:2402.13929; Ren et al. 2024, arXiv:2404.13686.
"""

from __future__ import annotations

import re
from typing import Any

STEPS = re.compile(r'(\d+)[-_ ]?steps?')
# pattern of a name -> (sampler, grid, steps where the name says none, guidance scale)
KINDS: dict[str, tuple[str, str | None, int, float]] = {
    r'lcm': ('lcm', None, 4, 1.5),
    r'tcd': ('tcd', None, 4, 1.0),
    r'hyper[-_]?sd': ('tcd', None, 8, 1.0),
    r'lightning': ('euler', 'trailing', 4, 1.0),
    r'turbo': ('euler_ancestral', 'trailing', 4, 1.0),
}


def settings(name: str) -> dict[str, Any] | None:
    """The settings of sampling that an adapter of a name needs, or None for one that needs none."""
    lower = name.lower()
    for pattern, (sampler, grid, steps, scale) in KINDS.items():
        if re.search(rf'(?<![a-z]){pattern}(?![a-z])', lower):
            said = STEPS.search(lower)
            steps = int(said[1]) if said else steps
            found = dict(sampler=sampler, num_steps=steps, guidance_scale=scale)
            return found if grid is None else found | dict(grid=grid)
    return None
