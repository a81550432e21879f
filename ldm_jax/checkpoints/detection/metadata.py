"""What a single file says of its training, beyond shapes: the noise schedule, the latents' scale, eps or v."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Read = Callable[[str], np.ndarray]

# Every noise schedule that a public model was trained with, linear in the square root of beta.
BETAS = ((0.00085, 0.012), (0.0001, 0.02), *((0.0015, end) for end in (0.015, 0.0155, 0.0195, 0.0205)))
STEPS = 1000
# Keys that some files hold only to say how they were trained.
UNSUPPORTED = {
    'ztsnr': 'a noise schedule whose last step is noise alone (zero terminal SNR)',
    'edm_vpred.sigma_max': 'EDM noise levels with v-prediction',
    'edm_mean': 'EDM noise levels with latents of a stated mean and deviation, as Playground 2.5',
}
GLOBAL_STEP_EPS = 875_000  # of Stable Diffusion 2.0 base; diffusers knows it by the same number


def refuse_unsupported(specs: Mapping[str, Any]) -> None:
    """Raises ValueError for marks of a training that no settings here can express."""
    for key, meaning in UNSUPPORTED.items():
        if key in specs:
            raise ValueError(
                f'The key {key!r} says that it was trained with {meaning}, which no schedule here expresses '
                "yet. Naming a config with --model takes that one's schedule instead."
            )


def prediction(
    specs: Mapping[str, Any], metadata: Mapping[str, str], sidecar: Mapping[str, Any] | None
) -> str | None:
    """'eps' or 'v' as the file, or the YAML beside it, says; None where neither does.

    Raises ValueError for words that are neither.
    """
    for said in (_of_sidecar(sidecar), _of_metadata(metadata)):
        if said is not None:
            return said
    return 'v' if 'v_pred' in specs else None


def prediction_by_step(scalars: Mapping[str, Any]) -> str | None:
    """'eps' for a checkpoint of Stable Diffusion 2 that stopped where 2.0 base did; None for any other."""
    return 'eps' if scalars.get('global_step') == GLOBAL_STEP_EPS else None


def sidecar_params(sidecar: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The settings of the original code's model: model.params of its YAML."""
    return (sidecar or {}).get('model', {}).get('params', {})


def schedule(
    specs: Mapping[str, Any],
    read: Read | None,
    sidecar: Mapping[str, Any] | None,
    default: tuple[float, float],
) -> dict[str, Any]:
    """The spec of the noise schedule: that of the file's tables, else the YAML's, else the default.

    Args:
        specs, read: of the file; its 'betas' or 'alphas_cumprod' are compared with the published schedules.
        sidecar: linear_start and linear_end of its model.params.
        default: first and last beta of the model's family.

    Raises:
        ValueError: the tables are of no schedule that is linear in the square root of beta, or another than
            the YAML says.
    """
    params = sidecar_params(sidecar)
    told = (params['linear_start'], params['linear_end']) if 'linear_start' in params else None
    table = next((key for key in ('betas', 'alphas_cumprod') if key in specs), None)
    if table is None or read is None:
        found, steps = told or default, params.get('timesteps', STEPS) if told else STEPS
    else:
        values = np.asarray(read(table))
        likely = [default, *BETAS] if told is None else [told, default, *BETAS]
        found, steps = _fitted(table, values, likely), len(values)
        if told is not None and found != tuple(told):
            raise ValueError(f"The file's {table} are those of {found}; the YAML beside it says {told}.")
    start, end = map(float, found)
    return dict(name='scaled_linear', beta_start=start, beta_end=end, num_train_steps=int(steps))


def scaling_factor(
    specs: Mapping[str, Any], read: Read | None, sidecar: Mapping[str, Any] | None, default: float | None
) -> float | None:
    """The factor on latents: of the buffer 'scale_factor', else the YAML's, else the default."""
    if 'scale_factor' in specs and read:
        return float(np.asarray(read('scale_factor'), np.float64))
    # Where the factor is the data's (scale_by_std), the YAML says 1 or nothing: that is where training began.
    params = sidecar_params(sidecar)
    return default if params.get('scale_by_std') else params.get('scale_factor', default)


def _tables(start: float, end: float, steps: int) -> dict[str, np.ndarray]:
    betas = np.linspace(start**0.5, end**0.5, steps, dtype=np.float64) ** 2
    return {'betas': betas, 'alphas_cumprod': np.cumprod(1 - betas)}


def _fitted(table: str, values: np.ndarray, likely: list[tuple[float, float]]) -> tuple[float, float]:
    """First and last beta of a table, of the likely ones where they fit."""
    exact = values.dtype.itemsize >= 4
    # Files in half precision have rounded tables too: bfloat16 keeps 8 bits.
    tolerance = 1e-5 if exact else 2.0**-8
    values = values.astype(np.float64)
    candidates = list(likely)
    if exact and len(values) > 1:  # a table of betas begins and ends with them; float32 has 7 digits
        betas = values if table == 'betas' else 1 - values / np.concatenate([[1.0], values[:-1]])
        candidates.append((float(f'{betas[0]:.6g}'), float(f'{betas[-1]:.6g}')))
    for start, end in candidates:
        if 0 < start <= end < 1 and np.allclose(
            _tables(start, end, len(values))[table], values, tolerance, tolerance * 1e-3
        ):
            return float(start), float(end)
    raise ValueError(
        f"The file's {table} are {len(values)} numbers from {values[0]:.6g} to {values[-1]:.6g}, of no schedule "
        'that is linear in the square root of beta. Naming a config with --model takes its schedule instead.'
    )


def _of_sidecar(sidecar: Mapping[str, Any] | None) -> str | None:
    params = sidecar_params(sidecar)
    if 'parameterization' in params:
        return _word(params['parameterization'], 'parameterization of the YAML')
    scaling = params.get('denoiser_config', {}).get('params', {}).get('scaling_config', {}).get('target')
    if scaling is not None:
        return _word(scaling.rpartition('.')[2], 'scaling_config of the YAML')
    # The original class predicts eps where its settings do not say.
    return 'eps' if str((sidecar or {}).get('model', {}).get('target', '')).startswith('ldm.') else None


def _of_metadata(metadata: Mapping[str, str]) -> str | None:
    if said := metadata.get('modelspec.prediction_type'):
        return _word(said, 'modelspec.prediction_type')
    architecture = metadata.get('modelspec.architecture', '')
    for mark, said in (('v2-768-v', 'v'), ('v2-512', 'eps')):
        if mark in architecture:
            return said
    if 'ss_v_parameterization' in metadata and metadata['ss_v_parameterization'] != 'None':
        return 'v' if metadata['ss_v_parameterization'] == 'True' else 'eps'
    return 'eps' if metadata.get('ss_v2') == 'True' and 'ss_v_parameterization' in metadata else None


WORDS = {
    **dict.fromkeys(('eps', 'epsilon', 'EpsScaling'), 'eps'),
    **dict.fromkeys(('v', 'v_prediction', 'v-prediction', 'vpred', 'VScaling'), 'v'),
}


def _word(said: Any, where: str) -> str:
    if said not in WORDS:
        raise ValueError(f'{where} is {said!r}; this project knows eps and v ({sorted(WORDS)}).')
    return WORDS[said]
