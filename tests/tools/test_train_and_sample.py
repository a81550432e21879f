"""The main job from the command line: three stages trained, then a prompt becomes images."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ldm_jax import build
from ldm_jax.data import synthetic
from ldm_jax.requests import infotext

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
def test_a_stage_learns_and_leaves_metrics_images_and_a_model(workdir, stage):
    folder = workdir / 'runs' / 'tiny' / stage
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert lines[-1]['step'] == 40
    assert lines[-1]['loss'] < lines[0]['loss']
    assert '<svg' in (folder / 'report.html').read_text()
    assert (folder / 'images' / '0000040_rows.png').is_file()
    settings = json.loads((folder / 'model' / 'settings.json').read_text())
    if stage == 'latent_diffusion':
        assert settings.keys() >= {'models', 'tokenizer', 'schedule', 'scaling_factor'}
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


MODEL = ['--model', 'runs/tiny/latent_diffusion/model', '--num_steps', 4, '--seed', 3]


@pytest.mark.slow
def test_a_prompt_becomes_the_same_images_each_time_and_from_their_own_settings(workdir):
    args = [*MODEL, '--prompt', 'a red circle']
    tool('sample.py', *args, '--out', 'one', '--num_images', 2, cwd=workdir)
    tool('sample.py', *args, '--out', 'two', '--num_images', 1, '--seed', 4, cwd=workdir)
    names = sorted(path.name for path in (workdir / 'one').iterdir())
    assert names == ['00001-3_a_red_circle.png', '00002-4_a_red_circle.png', '00003-sheet.png']
    second = workdir / 'one' / names[1]
    assert_near(second, workdir / 'two' / '00001-4_a_red_circle.png')  # whatever it is made beside
    with Image.open(second) as image:
        assert image.size == (128, 128)
        assert image.text['parameters'].startswith('a red circle\nSteps: 4, Sampler: dpmpp_2m')
        assert 'Seed: 4, ' in image.text['parameters']
    again = ['--from_png', second, '--model', 'runs/tiny/latent_diffusion/model', '--out', 'three', '--json']
    made = json.loads(tool('sample.py', *again, cwd=workdir).stdout)
    assert made['images'][0]['seed'] == 4
    assert made['task'] == 'text_to_image'
    assert_near(second, workdir / made['images'][0]['path'])


def assert_near(one, two):
    with Image.open(one) as one, Image.open(two) as two:
        assert np.abs(np.asarray(one, np.int16) - np.asarray(two, np.int16)).max() <= 1


@pytest.mark.slow
def test_other_tasks_and_prompts_of_a_file(workdir):
    (workdir / 'prompts.txt').write_text('a red circle\na blue square\n')
    args = [*MODEL, '--sampler', 'Euler a', '--num_images', 1, '--out', 'file', '--preview', 2]
    run = tool('sample.py', *args, '--prompts_file', 'prompts.txt', cwd=workdir)
    assert '2 images in ' in run.stdout
    assert 'sampling: 4 of 4' in run.stderr
    names = sorted(path.name for path in (workdir / 'file').iterdir())
    assert names == [
        '00001-3_a_red_circle.png', '00002-3_a_blue_square.png', '00003-sheet.png', 'preview.png'
    ]  # fmt: skip
    image = workdir / 'file' / names[0]
    Image.new('L', (128, 128), 255).save(workdir / 'mask.png')
    for extra in (['--strength', 0.5], ['--mask', 'mask.png']):
        args = [*MODEL, '--prompt', 'a circle', '--num_images', 1, '--out', 'edited', '--width', 16]
        tool('sample.py', *args, '--init_image', image, *extra, cwd=workdir)
    assert len(list((workdir / 'edited').iterdir())) == 2


@pytest.mark.slow
def test_kinds_of_guidance_are_written_into_images_and_read_back(workdir):
    worse = ['--weak_model', 'runs/tiny/latent_diffusion/model', '--autoguidance_scale', 2]
    apg = ['--guidance_rule', 'projected', '--apg_eta', 0.2, '--apg_threshold', 3, '--percentile', 0.99]
    for extra, words in [
        (worse, 'Guide model: runs/tiny/latent_diffusion/model, Guide scale: 2.0, '),
        ([*apg, '--sampler', 'DDIM CFG++'], 'APG eta: 0.2, APG threshold: 3.0, Threshold percentile: 0.99, '),
    ]:
        prompt = 'a red circle' if extra is worse else 'a red circle :1.2 AND a cross :-0.4'
        args = [*MODEL, '--prompt', prompt, '--num_images', 1, '--out', 'guided', *extra, '--json']
        made = json.loads(tool('sample.py', *args, cwd=workdir).stdout)['images'][0]
        assert made['parameters'].startswith(f'{prompt}\nSteps: 4, ')
        assert all(f'{setting}, ' in made['parameters'] for setting in words.split(', ') if setting)
        assert ('CFG scale' in made['parameters']) == (extra is not worse)
        again = ['--from_png', made['path'], '--model', 'runs/tiny/latent_diffusion/model', '--json']
        other = json.loads(tool('sample.py', *again, '--out', 'again', cwd=workdir).stdout)['images'][0]
        assert infotext.read(other['parameters']) == infotext.read(made['parameters'])
        assert_near(workdir / made['path'], workdir / other['path'])


@pytest.mark.slow
def test_the_trained_model_is_exported_sampled_and_scored(workdir):
    """The end of the path: its public files give its pixels, which are nearer to data than noise is."""
    (workdir / 'some.txt').write_text('a red circle\na blue cross\na green square\n')
    models = {
        'orbax': 'runs/tiny/latent_diffusion/model',
        'diffusers': 'exported',
        'compvis': 'exported.safetensors',
    }
    for form, path in models.items():
        if form != 'orbax':
            tool('convert.py', models['orbax'], path, '--to', form, cwd=workdir)
        line = ['--model', path, '--prompts_file', 'some.txt', '--num_images', 8, '--num_steps', 4]
        tool('sample.py', *line, '--out', form, cwd=workdir)

    def pixels(path):
        with Image.open(path) as image:
            return np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.int16)

    made = {
        form: np.stack(
            [pixels(path) for path in sorted((workdir / form).glob('*.png')) if 'sheet' not in path.name]
        )
        for form in models
    }
    assert len(made['orbax']) == 24
    np.testing.assert_allclose(made['diffusers'], made['orbax'], atol=1)
    np.testing.assert_allclose(made['compvis'], made['orbax'], atol=1)

    metric = build.build('evaluation', dict(name='fd'))

    def state(images):  # of the mean colours of quarters
        rows = images.reshape(len(images), 2, 8, 2, 8, 3).mean((2, 4)).reshape(len(images), -1) / 255
        return metric.update(metric.init(), rows, np.arange(len(rows)))

    examples = synthetic.Source(image_size=16)
    real = state(np.stack([examples[i]['image'] for i in range(len(examples))]))
    noise = np.random.default_rng(0).integers(0, 256, made['orbax'].shape)
    assert metric.result(state(made['orbax']), real)['fd'] < 0.5 * metric.result(state(noise), real)['fd']


@pytest.mark.slow
def test_names_of_samplers_and_grids_are_listed(tmp_path):
    lines = tool('sample.py', '--list_samplers', cwd=tmp_path).stdout.splitlines()
    assert lines[0].startswith('samplers: ')
    assert 'ddim_inverse' not in lines[0]  # of inversion alone
    assert '| DPM++ 2M | dpmpp_2m | karras |' in lines
