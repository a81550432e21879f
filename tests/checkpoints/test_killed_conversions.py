"""Conversions that die at any moment: the destination is whole or not there, and running again finishes it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ldm_jax import atomic, trees
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.lazy_arrays import Arrays
from tests.checkpoints import folders

ROOT = Path(__file__).parents[2]
SETTINGS = folders.TINY['StableDiffusionPipeline']
NAMES = {'orbax': 'out', 'diffusers': 'out', 'compvis': 'out.safetensors'}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Two models of the same shapes: 'new', and 'old', whose numbers are others."""
    root, paths = tmp_path_factory.mktemp('sources'), {}
    for name, scale in (('old', 2), ('new', 1)):
        params = folders.random_params(SETTINGS)
        leaves = {
            f'{part}/{path}': scale * leaf
            for part, tree in params.items()
            for path, leaf in trees.named(tree).items()
        }
        store.write_model(root / name, SETTINGS, Arrays(leaves))
        paths[name] = root / name
    return paths


def content(path):
    """All numbers of a checkpoint of any kind, verified; what diffusers' settings say is read too."""
    if store.is_model(path):
        leaves = store.open_model(path)
        return leaves.read(list(leaves.specs))
    opened = reader.open_folder(path) if path.is_dir() else reader.open_file(path)
    with opened as tensors:
        return {key: np.array(tensors[key]) for key in tensors}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


class Killer:
    """The process of killing.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.checkpoints.killing'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
        )

    def __call__(self, source, destination, to, renames=None, n=0):
        """What touched the disk, in order, or None when the process died of it."""
        self._process.stdin.write(json.dumps([str(source), str(destination), to, renames, n]) + '\n')
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope='module')
def killer():
    found = Killer()
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.parametrize('to', NAMES)
@pytest.mark.parametrize('replaces', [False, True])
def test_killed_at_any_touch_of_the_disk(sources, tmp_path, killer, to, replaces):
    wholes, seen = {}, set()
    for name in ('old', 'new') if replaces else ('new',):
        killer(sources[name], tmp_path / name / NAMES[to], to)
        wholes[name] = content(tmp_path / name / NAMES[to])

    def start(folder):
        shutil.copytree(tmp_path / 'old', folder) if replaces else folder.mkdir()
        return folder / NAMES[to]

    touches = killer(sources['new'], start(tmp_path / 'counted'), to)
    # Before and after the last names change, and some moments of all.
    renames = touches.count('os.rename')
    moments = {(last, n) for last in range(max(renames - 2, 1), renames + 1) for n in (0, 1)}
    moments |= {(0, int(n)) for n in np.linspace(1, 0.9 * len(touches), 6)}
    for last, n in sorted(moments):
        folder = tmp_path / f'{last}_{n}'
        destination = start(folder)
        (folder / 'out.old').write_text('mine')  # which looks like ours
        killed = killer(sources['new'], destination, to, last, n) is None
        assert killed or (last, n) == (renames, 1)  # where nothing may be left to do
        found = content(destination) if destination.exists() else None
        state = next((name for name, whole in wholes.items() if found and same(found, whole)), None)
        assert (state is None) == (found is None)  # whole, or nothing
        seen.add(state)
        if replaces and state is None:  # the older one is aside
            assert same(content(destination.with_name(destination.name + atomic.OLD)), wholes['old'])
        convert(sources['new'], destination, to=to)
        assert same(content(destination), wholes['new'])
        assert {path.name for path in folder.iterdir()} <= {'out.old', NAMES[to], 'out.report.json'}
        assert (folder / 'out.old').read_text() == 'mine'
    assert seen >= {'old' if replaces else None, 'new'}  # moments before, and after


@pytest.mark.slow
@pytest.mark.parametrize('to', NAMES)
def test_the_command_line_killed_at_random_moments(sources, tmp_path, to):
    destination, out = tmp_path / NAMES[to], ['--to', to]
    partial = destination.with_name(destination.name + atomic.PARTIAL)
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'convert.py'),
        str(sources['new']),
        str(destination),
        *out,
    ]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    convert(sources['new'], tmp_path / 'whole' / NAMES[to], to=to)
    whole, rng = content(tmp_path / 'whole' / NAMES[to]), np.random.default_rng(0)
    killed = 0
    for delay in rng.uniform(0, 0.5, 8) ** 2:  # seconds, from when the first byte is written
        before = partial.stat().st_mtime_ns if partial.exists() else None
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        while process.poll() is None and (not partial.exists() or partial.stat().st_mtime_ns == before):
            time.sleep(0.001)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() != 0
        if destination.exists():
            assert same(content(destination), whole)
    assert killed > 2
    assert subprocess.run(command, env=env).returncode == 0
    assert same(content(destination), whole)
    assert {path.name for path in tmp_path.iterdir()} <= {'whole', NAMES[to], 'out.report.json'}
