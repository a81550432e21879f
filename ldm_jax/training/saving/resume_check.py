"""A workdir belongs to one config: a run that was begun with another one is not continued by accident."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ldm_jax import atomic
from ldm_jax.build import unknown

CONFIG = 'config.json'
# What may change when a run goes on: it trains the same. On other devices that is to rounding.
FREE = ('run.save_every', 'run.image_every', 'run.keep', 'run.keep_every', 'run.profile', 'run.writers')
FREE += ('run.parallel', 'run.loader', 'stage.samples', 'export', 'run.evaluate', 'run.keep_best')
# What may change when it is asked for: the state that was saved goes on to train, in another way.
OPTIMIZER = ('lr', 'lr_batch_size', 'warmup_steps', 'curve', 'weight_decay', 'b1', 'b2', 'eps', 'clip_norm')
CHANGEABLE = tuple(
    f'{name}.{field}' for name in ('optimizer', 'discriminator_optimizer') for field in OPTIMIZER
)
CHANGEABLE += ('run.num_steps', 'run.log_every', 'run.nonfinite')
RENAMED = {'initial': 'warm_start', 'latent_scale': 'scaling_factor', 'run.picture_every': 'run.image_every'}

Changes = dict[str, tuple[Any, Any]]  # dotted name -> (old, new)


def changes(workdir: pathlib.Path, config: Mapping[str, Any], allowed: Sequence[str] = ()) -> Changes:
    """The settings of a config that differ from those a workdir's run was begun with; none before a state is saved.

    The number of steps may be raised, settings in FREE may change, and those in CHANGEABLE that are allowed.

    Raises ValueError for other changes, and for an allowed one that is not of CHANGEABLE.
    """
    for name in allowed:
        if not _below(name, CHANGEABLE):
            raise unknown('setting that --allow_change takes', name, list(CHANGEABLE))
    if not (workdir / CONFIG).exists() or not _saved(workdir):
        return {}
    old, new = flat(read(workdir)), flat(config)
    changed = {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _below(key, FREE)
    }
    before, after = changed.get('run.num_steps', (0, 0))
    refused = {
        key: values
        for key, values in changed.items()
        if not _below(key, allowed) and not (key == 'run.num_steps' and after > before)
    }
    if refused:
        ways = [key for key in refused if _below(key, CHANGEABLE)]
        raise ValueError(
            f'{workdir} was started with other settings (old, new): {refused}. Choose another --workdir, or give the '
            'old settings to resume'
            + (
                f'; --allow_change {",".join(ways)} goes on with the new ones.'
                if ways == list(refused)
                else '.'
            )
        )
    return changed


def record(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the config into a workdir whose run goes on with it."""
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        atomic.write(workdir / CONFIG, json.dumps(config, indent=2) + '\n', alone=True)


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a workdir's run, with the names that its fields have today.

    Raises FileNotFoundError where there is none.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f'{workdir} is no workdir of tools/train.py: it has no {CONFIG}.')
    config = json.loads(path.read_text())
    for old, new in RENAMED.items():
        *parents, name = old.split('.')
        node = config
        for parent in parents:
            node = node.get(parent, {})
        if name in node:
            node[new.rpartition('.')[2]] = node.pop(name)
    return config


def flat(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested settings by dotted name; an empty group is a value."""
    found = {}
    for key, value in settings.items():
        found |= (
            flat(value, f'{prefix}{key}.') if value and isinstance(value, dict) else {f'{prefix}{key}': value}
        )
    return found


def _below(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted name is one of these or of a field of theirs."""
    return any(f'{key}.'.startswith(f'{name}.') for name in names)


def _saved(workdir: pathlib.Path) -> bool:
    """Whether a run has left anything to go on from, readable or not."""
    folder = workdir / 'checkpoints'
    return any(path.name.isdecimal() or path.name == 'damaged' for path in folder.glob('*'))
