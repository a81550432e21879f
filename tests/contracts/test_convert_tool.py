"""Every wrong use of tools/convert.py ends in one line that says what is wrong, and leaves nothing behind."""

import contextlib
import io
import json
import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ldm_jax.cache import CACHE
from ldm_jax.checkpoints.files import safetensors
from ldm_jax.checkpoints.files.tensor_file import TensorSpec

TOOL = Path(__file__).parents[2] / 'tools' / 'convert.py'

# name -> what is made in the working folder
INPUTS = {
    'notes.txt': lambda path: path.write_text('no checkpoint'),
    'empty.ckpt': lambda path: path.write_bytes(b''),
    'cut.safetensors': lambda path: path.write_bytes(b'\x40\0\0\0\0\0\0\0{"a":'),
    'strangers.safetensors': lambda path: tensors(path, 'some.weight', 'another.bias'),
    'lora.safetensors': lambda path: tensors(path, 'lora_unet_down.lora_up.weight'),
    'words.safetensors': lambda path: tensors(path, 'emb_params'),
    'plain.pkl': lambda path: path.write_bytes(pickle.dumps({'a': 1})),
    'empty folder': lambda path: path.mkdir(),
    'thesis': lambda path: [path.mkdir(), (path / 'text.tex').write_text('years of work')],
    'mine.safetensors': lambda path: path.write_bytes(b'years of work'),
    'folder': lambda path: folder(path, {}),
    'a pipeline of others': lambda path: folder(
        path, {'model_index.json': {'transformer': ['diffusers', 'Flux']}}
    ),
    'no json': lambda path: folder(path, {'model_index.json': '{'}),
    'a list': lambda path: folder(path, {'model_index.json': []}),
    'settings alone': lambda path: folder(path, {'settings.json': {}}),
}

# arguments -> words of the one line
WRONG = [
    (['nowhere.ckpt', 'out'], ['nowhere.ckpt', 'owner/name']),
    (['notes.txt', 'out'], ['notes.txt']),
    (['empty.ckpt', 'out'], ['empty.ckpt']),
    (['cut.safetensors', 'out'], ['cut.safetensors']),
    (['strangers.safetensors', 'out'], ['strangers.safetensors', 'Expected is']),
    (['lora.safetensors', 'out'], ['LoRA']),
    (['words.safetensors', 'out'], ['textual inversion']),
    (['plain.pkl', 'out'], ['plain.pkl']),
    (['empty folder', 'out'], ['empty folder']),
    (['a pipeline of others', 'out'], ['a pipeline of others', 'weights']),
    (['no json', 'out'], ['model_index.json', 'JSON']),
    (['a list', 'out'], ['model_index.json', 'JSON']),
    (['settings alone', 'out'], ['settings alone']),
    (['someone/something', 'out'], ['hub', 'someone/something', 'hf download']),
    (['emoji32', 'thesis'], ['thesis', 'choose another path']),
    (['emoji32', 'thesis', '--to', 'diffusers'], ['thesis', 'choose another path']),
    (['emoji32', 'mine.safetensors', '--to', 'compvis'], ['mine.safetensors', 'choose another name']),
    (['emoji32', 'notes.txt/out'], ['notes.txt']),
    (['emoji32', 'out.ckpt', '--to', 'compvis'], ['.safetensors']),
    (['emoji32', 'out', '--to', 'compvis'], ['.safetensors']),
    (['emoji32', 'out', '--to', 'onnx'], ["'onnx'", 'orbax']),
    (['emoji32', 'out', '--dtype', 'int4'], ["'int4'", 'float16']),
    (['emoji32', 'out', '--parts', 'unett'], ["'unett'", "'unet'"]),
    (['emoji32', 'out', '--parts', ''], ['parts']),
    (['emoji32', 'out', '--parts', 'unet,,vae'], ['parts']),
    (['emoji32', 'out', '--model', 'sd16'], ['sd15']),
    (['emoji32', 'out', '--model', 'sd15'], ['model directory', 'model']),
    (['emoji32', 'out', '--prediction', 'eps'], ['model directory', 'prediction']),
    (['emoji32', 'out', '--prediction', 'noise'], ["'noise'", 'eps']),
    (['emoji32', 'out', '--weights', 'ema'], ['model directory', 'weights']),
    (['emoji32', 'out', '--variant', 'fp16'], ['model directory', 'variant']),
    (['emoji32', 'out', '--ignore', 'x.*'], ['model directory', 'ignore']),
    (['emoji32', 'out', '--text_encoder', 'nowhere'], ['nowhere']),
    (
        ['emoji32', 'out', '--parts', 'unet', '--to', 'diffusers', '--vae', 'strangers.safetensors'],
        ['strangers'],
    ),
    (['emoji32'], ['DESTINATION']),
    ([], ['SOURCE']),
    (['emoji32', 'out', '--colour', 'red'], ['--colour']),
]


def tensors(path, *keys):
    specs = {key: TensorSpec((2, 2), np.dtype(np.float32)) for key in keys}
    safetensors.write(path, specs, ((key, np.ones((2, 2), np.float32)) for key in keys))


def folder(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))


def run(monkeypatch, *arguments):
    """Exit status and the lines of stderr of the tool, in this process."""
    monkeypatch.setattr(sys, 'argv', ['convert.py', *arguments])
    monkeypatch.setattr(sys, 'path', [str(TOOL.parent.parent), *sys.path])
    error = io.StringIO()
    with contextlib.redirect_stderr(error), pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOL), run_name='__main__')
    return caught.value.code, error.getvalue().splitlines()


@pytest.mark.parametrize(('arguments', 'words'), WRONG, ids=lambda value: ' '.join(value)[:50])
def test_a_wrong_use_is_one_line(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE, str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hub'))
    for name in {argument.partition('/')[0] for argument in arguments} & INPUTS.keys():
        INPUTS[name](tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    status, lines = run(monkeypatch, *arguments)
    assert status in (1, 2)
    said = [line for line in lines if not line.startswith(('usage:', ' '))]  # argparse shows the usage first
    assert len(said) == 1, lines
    assert 'error: ' in said[0]
    assert all(word in said[0] for word in words), said[0]
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert {path: time for path, time in left.items() if 'hub' not in path.parts} == before
