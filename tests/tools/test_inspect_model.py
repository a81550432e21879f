"""The tool from its command line."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments):
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, 'tools/inspect_model.py', *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_tables():
    done = run('--model', 'ldm_bert_512', '--batch', '2')
    assert done.returncode == 0, done.stderr
    assert 'layer_15' in done.stdout
    assert '2x92x512' in done.stdout
    assert done.stdout.splitlines()[-1] == 'ldm_bert_512: 54,656,000 parameters'


@pytest.mark.slow
def test_json_at_another_size():
    done = run('--model', 'taesd', '--size', '64', '--depth', '0', '--json')
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report['params'] == 2_445_063
    part = report['parts']['first_stage']
    assert part['flops'] == 2 * part['macs']
    assert [layer['output'][0] for layer in part['layers']] == [[1, 64, 64, 3]]


@pytest.mark.slow
def test_wrong_calls_say_what_is_right():
    done = run('--model', 'sd16')
    assert done.returncode == 2
    assert "error: No config 'sd16'; the nearest are ['sd15'" in done.stderr
    done = run('--model', 'sd15', '--size', '100')
    assert done.returncode == 2
    assert '--size must be a multiple of 8' in done.stderr
    assert run().returncode != 0


@pytest.mark.slow
def test_list_shows_the_zoo():
    done = run('--list')
    assert done.returncode == 0, done.stderr
    assert (
        'sd15                      1,066,235,307  Stable Diffusion 1.1 to 1.5: text to 512 x 512 images.'
        in (done.stdout)
    )
    assert 'first_stage 83,653,863, text_encoder 123,060,480, unet 859,520,964' in done.stdout


@pytest.mark.slow
def test_context_length_and_size_reach_the_unet():
    done = run('--model', 'ldm_cin256', '--size', '512', '--depth', '4', '--json')
    assert done.returncode == 0, done.stderr
    rows = {row['path']: row for row in json.loads(done.stdout)['parts']['unet']['layers']}
    assert rows['conv_in']['output'] == [[1, 64, 64, 256]]
    assert rows['down_0_attn_0/block_0/attn2/k']['output'] == [[1, 1, 256]]  # one class token
