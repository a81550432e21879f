"""The main job from the command line: three stages trained, then a prompt becomes pictures."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent.parent


def tool(name, *args, cwd, check=True):
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, args)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment())
    assert not check or run.returncode == 0, run.stderr[-3000:]
    return run


def environment():
    import os

    return os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}


def train(stage, cwd, *overrides, **kwargs):
    config = f'{ROOT / "configs" / "tiny.py"}:{stage}'
    return tool(
        'train.py', '--config', config, '--workdir', f'runs/tiny/{stage}', *overrides, cwd=cwd, **kwargs
    )


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A folder where the three stages of configs/tiny.py have been trained for a few steps."""
    folder = tmp_path_factory.mktemp('tiny')
    for stage in ('first_stage', 'contrastive', 'latent_diffusion'):
        train(stage, folder, '--config.run.num_steps=40')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('stage', ['first_stage', 'contrastive', 'latent_diffusion'])
def test_a_stage_learns_and_leaves_metrics_pictures_and_a_model(workdir, stage):
    folder = workdir / 'runs' / 'tiny' / stage
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert lines[-1]['step'] == 40
    assert lines[-1]['loss'] < lines[0]['loss']
    assert '<svg' in (folder / 'report.html').read_text()
    assert (folder / 'pictures' / '0000040_rows.png').is_file()
    settings = json.loads((folder / 'model' / 'settings.json').read_text())
    if stage == 'latent_diffusion':
        assert settings.keys() >= {'models', 'tokenizer', 'schedule', 'latent_scale'}
        assert settings['models'].keys() == {'unet', 'first_stage', 'text_encoder'}


@pytest.mark.slow
def test_training_again_resumes_and_other_settings_are_refused(workdir):
    again = train('first_stage', workdir, '--config.run.num_steps=40')
    assert 'resumed at step 40' in again.stdout
    other = train(
        'first_stage', workdir, '--config.run.num_steps=40', '--config.run.batch_size=3', check=False
    )
    assert other.returncode != 0
    assert 'batch_size' in other.stderr
    assert '--workdir' in other.stderr


@pytest.mark.slow
def test_a_prompt_becomes_the_same_pictures_each_time(workdir):
    args = [
        '--model',
        'runs/tiny/latent_diffusion/model',
        '--prompt',
        'a red circle',
        '--num_steps',
        4,
        '--seed',
        3,
    ]
    tool('sample.py', *args, '--out', 'one', '--num_images', 2, cwd=workdir)
    tool('sample.py', *args, '--out', 'two', '--num_images', 1, cwd=workdir)
    names = sorted(path.name for path in (workdir / 'one').iterdir())
    assert names == ['a_red_circle_3.png', 'a_red_circle_3_0.png', 'a_red_circle_3_1.png']
    with (
        Image.open(workdir / 'one' / 'a_red_circle_3_0.png') as one,
        Image.open(workdir / 'two' / 'a_red_circle_3_0.png') as two,
    ):
        assert one.size == (128, 128)
        difference = np.asarray(one, np.int16) - np.asarray(two, np.int16)
        assert np.abs(difference).max() <= 1  # image 0 does not depend on how many there are
        assert one.text['prompt'] == 'a red circle'
        assert json.loads(one.text['settings'])['seed'] == 3


def test_mistakes_end_in_one_clear_line(tmp_path):
    for args, words in [
        (['--prompt', 'x', '--model', 'nowhere'], ['nowhere', 'owner/name']),
        (['--prompt', 'x', '--num_images', '0'], ['--num_images', '0']),
        (['--prompt', 'x', '--num_steps', '1001'], ['1001', '1000']),
        ([], ['--prompt']),
    ]:
        run = tool('sample.py', *args, cwd=tmp_path, check=False)
        assert run.returncode != 0
        assert all(word in run.stderr.splitlines()[-1] for word in words), run.stderr
    assert not list(tmp_path.iterdir())
