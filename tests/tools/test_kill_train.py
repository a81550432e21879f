"""What kills leave behind."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 8])
def test_nothing_is_lost_by_kills(tmp_path, devices):
    command = [
        sys.executable,
        'tools/kill_train.py',
        '--kills',
        '6',
        '--num_steps',
        '30',
        '--devices',
        str(devices),
    ]
    command += ['--config', 'tests/training/toy_config.py', '--workdir', str(tmp_path)]
    command += ['--', f'--config.run.parallel.kind={"single" if devices == 1 else "mesh"}']
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found['kills'] == 6
    assert found['unreadable'] == found['lost'] == found['stale'] == found['different'] == 0
