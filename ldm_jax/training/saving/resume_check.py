"""A workdir belongs to one config: what was begun with another is not gone on with by accident."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ldm_jax import atomic

CONFIG = 'config.json'
# What may change when a run goes on: it trains the same. On other devices that is to rounding.
FREE = ('run.save_every', 'run.image_every', 'run.keep', 'run.keep_every', 'run.profile', 'run.writers')
FREE += ('run.parallel', 'run.loader', 'stage.samples', 'export')


def check(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Writes the config into a new workdir; raises ValueError when an old one was started with another config.

    More steps may be asked for, and what FREE names may change: the workdir then keeps the new config.
    """
    path = workdir / CONFIG
    if path.exists():
        old, new = flat(json.loads(path.read_text())), flat(config)
        changed = {
            key: (old.get(key), new.get(key))
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not any(f'{key}.'.startswith(f'{name}.') for name in FREE)
        }
        before, after = changed.get('run.num_steps', (0, 0))
        if after > before:
            print(
                f'run.num_steps is raised from {before} to {after}; a learning rate that falls to the end is higher'
            )
            del changed['run.num_steps']
        if changed:
            raise ValueError(
                f'{workdir} was started with other settings (old, new): {changed}. Choose another --workdir, or give '
                'the old settings to resume; only run.num_steps may be raised.'
            )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(config, indent=2) + '\n', alone=True)


def flat(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested settings by dotted name."""
    found = {}
    for key, value in settings.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}': value}
    return found
