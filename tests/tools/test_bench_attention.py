"""The benchmark of attention from the command line."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def bench(*args):
    command = [sys.executable, str(ROOT / 'tools' / 'bench_attention.py'), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_shape_gets_a_row():
    run = bench('--shapes', '2x8x8x1x8', '--repeats', '1')
    assert run.returncode == 0, run.stderr
    assert '2x8x8x1x8' in run.stdout


@pytest.mark.slow
def test_a_shape_of_four_sides_is_refused():
    run = bench('--shapes', '2x8x8x8')
    assert run.returncode != 0
    assert '2x8x8x8' in run.stdout + run.stderr
