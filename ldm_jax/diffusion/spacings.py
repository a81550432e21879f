"""Where a schedule is sampled: schedule and number of steps -> times [S], noisiest first, float64.

These are the times at which the network is evaluated; the end of the last step is the grid's (grids.py). The
quirks of reference samplers are data here, so that samplers have none.

Spacings by noise are stated in sigma / alpha, as k-diffusion states them, and on the straight line of flow
matching in its sigma; the schedule says which time has that noise (on tables log sigma is linear in t, as in
k-diffusion). Their sigma_min and sigma_max are the schedule's own unless given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ldm_jax.build import unknown
from ldm_jax.diffusion.host_levels import levels, noise_range, times_of_noise
from ldm_jax.types import Schedule

ALIGNED = {  # Sabour et al. 2024, arXiv:2404.14507, from their page; the last one is where the last step ends
    'sd1': (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    'sdxl': (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


# By time


def trailing(schedule: Schedule, num_steps: int, *, lambda_min: float = -np.inf) -> np.ndarray:
    """Every (N / S)-th whole time down from the last, where training saw its noisiest images.

    lambda_min: the last is the last time whose log(alpha / sigma) is not below it (diffusers' lambda_min_clipped,
    for schedules that end at almost no signal). Ref: Lin et al. 2024, arXiv:2305.08891, table 2.
    """
    stride = _whole(schedule, num_steps) / num_steps
    return np.round(_clipped(schedule, lambda_min) - stride * np.arange(num_steps)) - 1


def leading(
    schedule: Schedule, num_steps: int, *, steps_offset: int = 1, lambda_min: float = -np.inf
) -> np.ndarray:
    """Every c-th of 0 .. N - 1 plus steps_offset, c = N // S, the lowest S of them: diffusers' DDIM.

    It starts short of the noisiest level (one step: at t = 1); public samples were made so. lambda_min: see trailing.
    """
    _whole(schedule, num_steps)
    stride = _clipped(schedule, lambda_min) // num_steps
    return np.arange(num_steps)[::-1] * float(stride) + steps_offset


def linspace(
    schedule: Schedule,
    num_steps: int,
    *,
    rounded: bool = True,
    last: float = 0.0,
    one_at_last: bool = False,
    lambda_min: float = -np.inf,
) -> np.ndarray:
    """S times from N - 1 to `last`, both included; rounded to whole ones, or not (k-diffusion's get_sigmas).

    One step starts at N - 1; with one_at_last, as in diffusers, at `last`, where there is no noise to remove.
    lambda_min: see trailing.
    """
    if rounded:
        _whole(schedule, num_steps)
    first = _clipped(schedule, lambda_min) - 1.0
    if num_steps == 1:
        return np.array([last if one_at_last else first])
    times = np.linspace(last, first, num_steps)[::-1]
    return np.round(times) if rounded else times


def simple(schedule: Schedule, num_steps: int) -> np.ndarray:
    """Whole times N - 1 - floor(i N / S): ComfyUI's 'simple'."""
    total = _whole(schedule, num_steps)
    return total - 1 - np.floor(np.arange(num_steps) * (total / num_steps))


def ddim(schedule: Schedule, num_steps: int, *, quadratic: bool = False) -> np.ndarray:
    """CompVis' own DDIM times: every c-th of 0 .. N - 1 plus one, c = N // S, all of them.

    Where S does not divide N there are more than S. The time N that it asks for when c divides N - 1 does not
    exist; it is N - 1 here, once, as in A1111. quadratic: squares up to 0.8 N plus one ('quad'), each once, so
    that many steps become fewer than S. Ref: Song et al. 2021, arXiv:2010.02502, appendix D.2.
    """
    total = _whole(schedule, num_steps)
    if quadratic:
        times = np.floor(np.linspace(0, np.sqrt(0.8 * total), num_steps) ** 2)
    else:
        times = np.arange(0, total, total // num_steps)
    return np.unique(np.minimum(times + 1.0, total - 1))[::-1]


def ddim_uniform(schedule: Schedule, num_steps: int) -> np.ndarray:
    """ComfyUI's 'ddim_uniform': 1, 1 + c, ... below N, c = N // S; often more than S times, or fewer."""
    total = _whole(schedule, num_steps)
    return np.arange(1.0, total, total // num_steps)[::-1]


def lcm(schedule: Schedule, num_steps: int, *, original_steps: int = 50) -> np.ndarray:
    """S of the original_steps times at which a consistency model was distilled, from N - 1 down.

    Ref: Luo et al. 2023, arXiv:2310.04378, section 4.3; diffusers' LCM and TCD schedulers.
    """
    total = _whole(schedule, original_steps)
    if not 1 <= num_steps <= original_steps:
        raise ValueError(
            f'num_steps must be between 1 and the {original_steps} original_steps; got {num_steps}.'
        )
    trained = np.arange(original_steps, 0, -1) * float(total // original_steps) - 1
    return trained[np.floor(np.linspace(0, original_steps, num_steps, endpoint=False)).astype(int)]


def beta(
    schedule: Schedule,
    num_steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    of: str = 'time',
    within: str | None = None,
) -> np.ndarray:
    """Quantiles of the Beta distribution: by its defaults dense at both ends.

    of: 'time' is the paper's and ComfyUI's, whole times each taken once, so that many steps (of 1000 from 139 on)
    become fewer than S; 'noise' spreads sigma instead, down to sigma_min: A1111's and diffusers'. within: see karras.
    Ref: Lee et al. 2024, arXiv:2407.12173.
    """
    from scipy import special  # slow to import

    if of == 'noise':
        low, high = _ends(schedule, within=within, num_steps=num_steps)
        return times_of_noise(
            schedule, low + special.betaincinv(alpha, beta, _from_top(num_steps)) * (high - low)
        )
    if of != 'time':
        raise unknown('distribution', of, ['noise', 'time'])
    last = _whole(schedule, num_steps) - 1
    quantiles = special.betaincinv(alpha, beta, 1 - np.linspace(0, 1, num_steps, endpoint=False))
    return np.unique(np.rint(quantiles * last))[::-1]


def timesteps(schedule: Schedule, num_steps: int, *, values: tuple[float, ...]) -> np.ndarray:
    """These times."""
    return _listed(values, num_steps)


# By noise


def karras(
    schedule: Schedule,
    num_steps: int,
    *,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    within: str | None = None,
) -> np.ndarray:
    """sigma^(1/rho) evenly spaced. Ref: Karras et al. 2022, arXiv:2206.00364, eq. 5.

    within: 'leading' or 'trailing': from the first to the last level of that spacing, as some of diffusers' samplers.
    """
    ends = _ends(schedule, sigma_min, sigma_max, within, num_steps)
    low, high = (end ** (1 / rho) for end in ends)
    return times_of_noise(schedule, (low + _from_top(num_steps) * (high - low)) ** rho)


def polyexponential(
    schedule: Schedule,
    num_steps: int,
    *,
    rho: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    within: str | None = None,
) -> np.ndarray:
    """log sigma falls as the rho-th power of an even ramp: k-diffusion's; rho = 1 is the exponential one.

    within: see karras.
    """
    low, high = np.log(_ends(schedule, sigma_min, sigma_max, within, num_steps))
    return times_of_noise(schedule, np.exp(low + _from_top(num_steps) ** rho * (high - low)))


def kl_optimal(
    schedule: Schedule, num_steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None
) -> np.ndarray:
    """arctan sigma evenly spaced. Ref: Sabour et al. 2024, arXiv:2404.14507, section 3.1."""
    low, high = np.arctan(_ends(schedule, sigma_min, sigma_max))
    return times_of_noise(schedule, np.tan(low + _from_top(num_steps) * (high - low)))


def linear_quadratic(
    schedule: Schedule, num_steps: int, *, threshold_noise: float = 0.025, linear_steps: int | None = None
) -> np.ndarray:
    """sigma falls by threshold_noise of itself in linear_steps (S // 2) even steps, then ever faster: Mochi's.

    The parabola meets the line with its slope, and zero at the end of the last step. As in ComfyUI.
    """
    linear = num_steps // 2 if linear_steps is None else linear_steps
    if not 0 <= linear < num_steps:
        raise ValueError(f'linear_steps must be from 0 to below the {num_steps} steps; got {linear}.')
    i = np.arange(num_steps, dtype=float)
    slope = threshold_noise / linear if linear else 0.0
    bend = (1 - slope * num_steps) / (num_steps - linear) ** 2
    fallen = slope * i + bend * np.maximum(i - linear, 0) ** 2
    return times_of_noise(schedule, (1 - fallen) * _ends(schedule)[1])


def align_your_steps(schedule: Schedule, num_steps: int, *, model: str = 'sd1') -> np.ndarray:
    """The published sigmas for Stable Diffusion 1 or XL, log-linear between them: model 'sd1' or 'sdxl'.

    Ref: Sabour et al. 2024, arXiv:2404.14507.
    """
    if model not in ALIGNED:
        raise unknown('model', model, sorted(ALIGNED))
    table = np.log(ALIGNED[model])[::-1]
    return times_of_noise(
        schedule, np.exp(np.interp(_from_top(num_steps), np.linspace(0, 1, len(table)), table))
    )


def sigmas(schedule: Schedule, num_steps: int, *, values: tuple[float, ...]) -> np.ndarray:
    """The times of these sigmas; a 0 that ends the list is the grid's end and dropped."""
    values = values[:-1] if values and values[-1] == 0 else values
    return times_of_noise(schedule, _listed(values, num_steps))


SPACINGS: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (
        trailing, leading, linspace, simple, ddim, ddim_uniform, lcm, beta, timesteps,
        karras, polyexponential, kl_optimal, linear_quadratic, align_your_steps, sigmas,
    )
}  # fmt: skip


def _whole(schedule: Schedule, num_steps: int) -> int:
    """The number of training steps, of which a spacing takes whole times."""
    if not 1 <= num_steps <= schedule.num_train_steps:
        raise ValueError(
            f'num_steps must be between 1 and the {schedule.num_train_steps} training steps; got {num_steps}.'
        )
    return schedule.num_train_steps


def _clipped(schedule: Schedule, lambda_min: float) -> int:
    """The number of whole times, from 0 on, at which log(alpha / sigma) is not below lambda_min."""
    total = schedule.num_train_steps
    if lambda_min == -np.inf:
        return total
    at = levels(schedule, np.arange(total))
    with np.errstate(divide='ignore'):
        return int(np.sum(np.log(at.alpha) - np.log(at.sigma) >= lambda_min))


def _from_top(num_steps: int) -> np.ndarray:
    """An even ramp [S] from 1 to 0; one step is at 1."""
    return np.linspace(1, 0, num_steps)


def _listed(values: tuple[float, ...], num_steps: int) -> np.ndarray:
    if len(values) != num_steps:
        raise ValueError(f'The list holds {len(values)} steps; got num_steps = {num_steps}.')
    return np.asarray(values, np.float64)


def _ends(
    schedule: Schedule,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    within: str | None = None,
    num_steps: int = 1,
) -> tuple[float, float]:
    """The least and the largest noise to sample at: the schedule's own, another spacing's, or those given."""
    _, low, high = noise_range(schedule)
    if within is not None:
        if within not in ('leading', 'trailing'):
            raise unknown('spacing to be within', within, ['leading', 'trailing'])
        at = levels(schedule, SPACINGS[within](schedule, num_steps)[[-1, 0]])
        low, high = (
            float(ratio) for ratio in np.asarray(at.sigma, np.float64) / np.asarray(at.alpha, np.float64)
        )
    low = low if sigma_min is None else sigma_min
    high = high if sigma_max is None else sigma_max
    if not 0 < low < high < np.inf:
        raise ValueError(
            f'Steps by noise need 0 < sigma_min < sigma_max < inf; got {low:.4g} and {high:.4g}. Where a schedule '
            'ends at noise alone give sigma_max, or (zero_terminal) last_alpha_cumprod.'
        )
    return low, high
