"""One writer at a time: two conversions to one destination, at any offset, end with one whole result."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import claims, store
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.files import reader
from ldm_jax.checkpoints.lazy_arrays import Arrays
from tests.checkpoints import folders

ROOT = Path(__file__).parents[2]
SETTINGS = folders.TINY['StableDiffusionPipeline']
NAMES = {'orbax': 'out', 'diffusers': 'out', 'compvis': 'out.safetensors'}


def test_a_claim_is_refused_while_it_is_held_and_says_by_whom(tmp_path):
    with claims.claimed(tmp_path / 'model'):
        for refused in (claims.check, lambda path: claims.claimed(path).__enter__()):
            with pytest.raises(FileExistsError, match=f'model is being written by process {os.getpid()} on '):
                refused(tmp_path / 'model')
        with claims.claimed(tmp_path / 'another'):
            pass
    claims.check(tmp_path / 'model')
    with claims.claimed(tmp_path / 'model'):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_holds_nothing(tmp_path):
    code = f"""
        import os, sys; sys.path.insert(0, {str(ROOT)!r})
        from ldm_jax.checkpoints import claims
        held = claims.claimed({str(tmp_path / 'model')!r}); held.__enter__()
        os._exit(9)
    """
    subprocess.run([sys.executable, '-c', code.replace('\n        ', '\n')], check=False)
    assert os.listdir(tmp_path) == ['model' + claims.CLAIM]
    claims.check(tmp_path / 'model')
    with claims.claimed(tmp_path / 'model'):
        pass
    assert os.listdir(tmp_path) == []


def test_of_many_claimants_one_at_a_time_gets_it(tmp_path):
    inside, most, got = [], [], []

    def claim():
        for _ in range(40):
            try:
                with claims.claimed(tmp_path / 'model'):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    got.append(1)
            except FileExistsError:
                time.sleep(0.0002)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(got) > 5


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Two models of the same shapes with other numbers."""
    root = tmp_path_factory.mktemp('sources')
    for name, scale in (('one', 1), ('two', 2)):
        params = folders.random_params(SETTINGS)
        leaves = {
            f'{part}/{path}': scale * leaf
            for part, tree in params.items()
            for path, leaf in trees.named(tree).items()
        }
        store.write_model(root / name, SETTINGS, Arrays(leaves))
    return root


def scale_of(path):
    """What the numbers of a whole checkpoint were multiplied by; it is an error where they are mixed."""
    plain = folders.random_params(SETTINGS)['text_encoder']
    if store.is_model(path):
        return _same(trees.named(store.load_model(path)[1]['text_encoder']), trees.named(plain))
    with reader.open_folder(path) if path.is_dir() else reader.open_file(path) as tensors:
        found = np.array([np.abs(np.array(tensors[key], np.float64)).sum() for key in sorted(tensors)]).sum()
    return found


def _same(found, plain):
    ratios = {
        round(float(np.sum(np.abs(found[key])) / np.sum(np.abs(leaf))), 4) for key, leaf in plain.items()
    }
    assert len(ratios) == 1
    return ratios.pop()


@pytest.mark.parametrize('to', NAMES)
def test_a_conversion_into_a_held_destination_changes_nothing(sources, tmp_path, to):
    with claims.claimed(tmp_path / NAMES[to]):
        before = os.listdir(tmp_path)
        with pytest.raises(FileExistsError, match='is being written by process'):
            convert(str(sources / 'one'), str(tmp_path / NAMES[to]), to=to)
        assert os.listdir(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize('to', NAMES)
@pytest.mark.parametrize('offset', [0, 0.4])
def test_two_conversions_to_one_destination(sources, tmp_path, to, offset):
    destination = tmp_path / NAMES[to]
    wholes = {}
    for name in ('one', 'two'):
        convert(str(sources / name), str(tmp_path / name / NAMES[to]), to=to)
        wholes[name] = scale_of(tmp_path / name / NAMES[to])
    processes = []
    for name in ('one', 'two'):
        command = [sys.executable, str(ROOT / 'tools' / 'convert.py'), str(sources / name), str(destination)]
        processes.append(
            subprocess.Popen(
                [*command, '--to', to, '--json'],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
            )
        )
        time.sleep(offset)
    ends = [process.communicate() for process in processes]
    won = [name for name, process in zip(wholes, processes, strict=True) if process.returncode == 0]
    assert won
    assert scale_of(destination) in [
        wholes[name] for name in won
    ]  # both where one began when the other had ended
    for (out, error), process in zip(ends, processes, strict=True):
        if process.returncode:
            assert 'is being written by process' in error.splitlines()[-1]
            assert out == ''
        else:
            assert json.loads(out)['to'] == to
    assert {path.name for path in tmp_path.iterdir()} <= {'one', 'two', NAMES[to], 'out.report.json'}
