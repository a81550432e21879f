"""The YAML of the original code that lies beside a checkpoint: the fields that are read, each checked.

model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params: {linear_start: 0.00085, linear_end: 0.0120, timesteps: 1000, parameterization: v, scale_factor: 0.18215}
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.checkpoints import noise_schedules

Sidecar = Mapping[str, Any]

MAX_BYTES = 2**20  # of a YAML; the published ones have two to five thousand
STARTS, ENDS, STEPS = 0.0001, 0.02, 1000  # of the original class, where its settings do not say
WORDS = {
    **dict.fromkeys(('eps', 'epsilon', 'EpsScaling'), 'eps'),
    **dict.fromkeys(('v', 'v_prediction', 'v-prediction', 'vpred', 'VScaling'), 'v'),
}


def path_of(checkpoint: pathlib.Path) -> pathlib.Path | None:
    """The YAML under the name of a checkpoint, where there is one."""
    names = (checkpoint.with_suffix('.yaml'), checkpoint.with_suffix('.yml'))
    return next((path for path in names if path.is_file()), None)


def read(checkpoint: pathlib.Path) -> Sidecar | None:
    """The YAML beside a checkpoint, checked. Raises as `checked`, and ValueError for a file that is no YAML."""
    path = path_of(checkpoint)
    if path is None:
        return None
    import yaml

    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f'{path} has {path.stat().st_size} bytes; a YAML of a model has some thousands. Remove it.'
        )
    try:
        found = yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = ' '.join(str(error).split())[:200]
        raise ValueError(f'{path} is no YAML: {text}. Mend or remove it.') from error
    return checked(found, str(path))


def params(sidecar: Sidecar | None) -> Mapping[str, Any]:
    """The settings of the original code's model: model.params."""
    return (sidecar or {}).get('model', {}).get('params', {})


def checked(found: Any, where: str) -> Sidecar:
    """The fields that are read, numbers as numbers: YAML 1.1 takes 2e-1 for a text.

    Raises ValueError for a field that is not what it should be, with file, field and value.
    """
    if found is None or not isinstance(found, Mapping):
        kind = 'nothing' if found is None else f'a {type(found).__name__}'
        raise ValueError(f'{where} holds {kind}, no settings. Mend or remove it.')
    if 'model' not in found:
        return {}
    try:
        model = _mapping(found, 'model', 'model')
        kept: dict[str, Any] = {}
        if 'target' in model:
            kept['target'] = _text(model['target'], 'model.target')
        if 'params' in model:
            kept['params'] = _params(_mapping(model, 'params', 'model.params'))
        return {'model': kept}
    except ValueError as error:
        raise ValueError(f'{where}: {error} Mend or remove it.') from error


def schedule(sidecar: Sidecar | None) -> noise_schedules.Spec | None:
    """The noise schedule that is said; None where none is."""
    found = params(sidecar)
    if not {'linear_start', 'beta_schedule'} & found.keys():
        return None
    start, end = found.get('linear_start', STARTS), found.get('linear_end', ENDS)
    word, steps = found.get('beta_schedule', 'linear'), found.get('timesteps', STEPS)
    spec = noise_schedules.by_word('original', word, start, end, steps)
    if word == 'cosine' and 'cosine_s' in found:
        spec['offset'] = found['cosine_s']
    build.build('schedules', spec)
    return spec


def prediction(sidecar: Sidecar | None) -> str | None:
    """'eps' or 'v' as it is said; None where it is not. Raises ValueError for words that are neither."""
    found = params(sidecar)
    if 'parameterization' in found:
        return word(found['parameterization'], 'parameterization of the YAML')
    scaling = found.get('denoiser_config', {}).get('params', {}).get('scaling_config', {}).get('target')
    if scaling is not None:
        return word(scaling.rpartition('.')[2], 'scaling_config.target of the YAML')
    # The original class predicts eps where its settings do not say.
    return 'eps' if str((sidecar or {}).get('model', {}).get('target', '')).startswith('ldm.') else None


def word(said: Any, where: str) -> str:
    """'eps' or 'v' of any of their names. Raises ValueError for another word."""
    if not isinstance(said, str) or said not in WORDS:
        raise ValueError(f'{where} is {said!r}; this project knows eps and v ({sorted(WORDS)}).')
    return WORDS[said]


def _params(found: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, read in FIELDS.items():
        if key in found:
            kept[key] = read(found[key], f'model.params.{key}')
    if 'given_betas' in found and found['given_betas'] is not None:
        raise ValueError('model.params.given_betas is not supported.')
    if ('linear_start' in found) != ('linear_end' in found):
        absent = 'linear_end' if 'linear_start' in found else 'linear_start'
        raise ValueError(f'model.params.{absent} is missing; both or neither must be there.')
    if 'denoiser_config' in found:
        kept['denoiser_config'] = _denoiser(
            _mapping(found, 'denoiser_config', 'model.params.denoiser_config')
        )
    sidecar = {'model': {'params': kept}}
    prediction(sidecar)
    try:
        schedule(sidecar)
    except ValueError as error:
        said = {
            key: kept[key]
            for key in ('beta_schedule', 'linear_start', 'linear_end', 'timesteps')
            if key in kept
        }
        raise ValueError(f'model.params: {said} make no schedule: {error}') from error
    return kept


def _denoiser(found: Mapping[str, Any]) -> dict[str, Any]:
    """denoiser_config of Stability's code: which scaling its network has."""
    where = 'model.params.denoiser_config.params'
    if 'params' not in found:
        return {}
    inner = _mapping(found, 'params', where)
    if 'scaling_config' not in inner:
        return {}
    scaling = _mapping(inner, 'scaling_config', f'{where}.scaling_config')
    target = _text(scaling.get('target'), f'{where}.scaling_config.target')
    return {'params': {'scaling_config': {'target': target}}}


def _mapping(found: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    if not isinstance(found[key], Mapping):
        raise ValueError(f'{where} is {_shown(found[key])}; it must hold settings.')
    return found[key]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{where} is {_shown(value)}; it must be a text.')
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f'{where} is {_shown(value)}; it must be true or false.')
    return value


def _positive(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f'{where} is {_shown(value)}; it must be a number above 0.')
    return number


def _count(value: Any, where: str) -> int:
    try:
        number = _positive(value, where)
    except ValueError:
        number = math.nan
    if not number.is_integer() or number > 2**20:
        raise ValueError(f'{where} is {_shown(value)}; it must be an integer above 0.')
    return int(number)


def _steps(value: Any, where: str) -> int:
    number = _count(value, where)
    if number < 2:
        raise ValueError(f'{where} is {_shown(value)}; it must be at least 2.')
    return number


def _said(value: Any, where: str) -> Any:
    return value  # checked by `prediction`, which knows the words


def _shown(value: Any) -> str:
    return repr(value)[:80]


FIELDS: dict[str, Callable[[Any, str], Any]] = {
    'linear_start': _positive,
    'linear_end': _positive,
    'cosine_s': _positive,
    'scale_factor': _positive,
    'timesteps': _steps,
    'image_size': _count,
    'scale_by_std': _flag,
    'beta_schedule': _text,
    'parameterization': _said,
}
