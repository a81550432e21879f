"""CFG++: classifier-free guidance whose noise is the unconditional one.

A step lands on alpha x0_guided + sigma eps_uncond. Plain guidance extrapolates eps too, which leaves the data's
manifold at high scales; here a scale in 0 .. 1 does what 1 .. 12 did.
Ref: Chung et al. 2024, arXiv:2406.08070, algorithm 2.
"""

from __future__ import annotations

from typing import Any

from ldm_jax.types import Array, NoiseLevel


def both(denoise: Any, x: Array, level: NoiseLevel) -> tuple[Array, Array]:
    """(guided x0_hat, unconditional x0_hat) of a guided denoiser.

    Raises ValueError when it has no method `both`, that is, when there is no guidance.
    """
    if not hasattr(denoise, 'both'):
        raise ValueError(
            f'A CFG++ sampler needs the unconditional prediction beside the guided one; {denoise!r} has no '
            "method 'both'. Guide it (diffusion.guidance), or take the sampler without _cfg_pp."
        )
    return denoise.both(x, level)
