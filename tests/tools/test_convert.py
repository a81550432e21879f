"""Conversion from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ldm_jax.checkpoints import store

ROOT = Path(__file__).parents[2]


def run(*args, cwd):
    command = [sys.executable, str(ROOT / 'tools' / 'convert.py'), *map(str, args)]
    env = {
        'PYTHONPATH': str(ROOT),
        'JAX_PLATFORMS': 'cpu',
        'HF_HUB_OFFLINE': '1',
        'HOME': str(cwd),
        'PATH': '',
    }
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)


@pytest.mark.slow
def test_a_shipped_model_goes_out_and_comes_back(tmp_path):
    out = run('emoji32', 'emoji32.safetensors', '--to', 'compvis', '--parts', 'vae', cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert 'first_stage: 954,567 parameters in 152 arrays (152 float16)' in out.stdout
    back = run('emoji32.safetensors', 'back', '--json', cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert 'replaced' not in back.stderr
    again = run('emoji32.safetensors', 'back', cwd=tmp_path)
    assert 'back: replaced the conversion that was there' in again.stderr
    assert json.loads(back.stdout)['parts']['first_stage']['parameters'] == 954_567
    ours, theirs = (store.open_model(path) for path in (store.find('emoji32'), tmp_path / 'back'))
    names = [name for name in ours.specs if name.startswith('first_stage/')]
    assert {name: ours.record[name] for name in names} == {name: theirs.record[name] for name in theirs.specs}


@pytest.mark.slow
def test_mistakes_end_in_one_clear_line(tmp_path):
    (tmp_path / 'notes.txt').write_text('no checkpoint')
    for args, words in [
        (('nowhere.ckpt', 'out'), ['nowhere.ckpt', 'owner/name']),
        (('notes.txt', 'out'), ['notes.txt']),
        (('someone/something', 'out'), ['hub', 'someone/something', 'hf download']),
        (('emoji32', 'out', '--parts', 'unett'), ["'unett'", "'unet'"]),
        (('emoji32', 'out', '--model', 'sd16'), ['sd15']),
        (('emoji32', 'out.ckpt', '--to', 'compvis'), ['.safetensors']),
    ]:
        out = run(*args, cwd=tmp_path)
        # A file of no kind is failed work, as is a hub that no connection leads to; where HF_HUB_OFFLINE asks for
        # none, the model is simply not there.
        code = {'notes.txt': (1,), 'someone/something': (1, 2)}.get(args[0], (2,))
        assert out.returncode in code, (args, out.stderr)
        assert out.stderr.splitlines()[-1].startswith('error: ')
        assert all(word in out.stderr.splitlines()[-1] for word in words), out.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
