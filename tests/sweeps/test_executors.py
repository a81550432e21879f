"""Shares of a sweep: by hand, on Ray's local cluster and by submitit's local executor, all as in one process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ldm_jax.sweeps import command, definition
from tests import tiny_models

ROOT = pathlib.Path(__file__).parents[2]
FILE = """
def get_config(arg=''):
    return {config!r}
"""


def test_shares_and_options_are_read_or_refused():
    assert command.shard('2/8') == (2, 8)
    assert command.shard(None) is None
    for wrong in ('8/8', '1', 'a/b', '-1/2'):
        with pytest.raises(ValueError, match='such as 0/8'):
            command.shard(wrong)
    assert command.options(['timeout_min=60', 'slurm_partition=gpu']) == dict(
        timeout_min=60, slurm_partition='gpu'
    )
    with pytest.raises(ValueError, match='NAME=VALUE'):
        command.options(['gpu'])


def tool(sweep, out, *flags):
    """Runs tools/sweep.py, which must succeed."""
    env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
    line = [sys.executable, str(ROOT / 'tools' / 'sweep.py'), str(sweep), '--out', str(out), *flags]
    found = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    return found


def numbers(out):
    """Key -> what a cell gave, but for its time."""
    found = {}
    for path in sorted(pathlib.Path(out).glob('cells/*.json')):
        record = json.loads(path.read_text())
        found[path.stem] = {k: v for k, v in record['numbers'].items() if k != 'seconds'}
    return found


@pytest.mark.slow
def test_shares_by_hand_make_what_one_process_makes(tmp_path):
    model = tiny_models.save(tmp_path, 'text')
    config = dict(
        cells=dict(name='sampling', prompts=['a red circle'], num_images=2),
        settings=dict(model=model, num_steps=2),
        vary=dict(sampler=['euler', 'ddim'], seed=[0, 1]),
    )
    (tmp_path / 'sweep.py').write_text(FILE.format(config=config))
    sweep = definition.sweep(config)
    for i in range(2):
        tool(tmp_path / 'sweep.py', tmp_path / 'out', '--shard', f'{i}/2')
        assert len(numbers(tmp_path / 'out')) == 2 * (i + 1)
        assert not (tmp_path / 'out' / 'report.html').exists()
    said = tool(tmp_path / 'sweep.py', tmp_path / 'out').stdout
    assert '2 rows of 4 cells, 0 failed' in said
    assert set(numbers(tmp_path / 'out')) == {cell.key for cell in sweep.cells}
