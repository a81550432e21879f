"""configs/finetune.py and configs/from_scratch.py: from a folder of images and captions to a model."""

import json

import numpy as np
import pytest
from PIL import Image

import configs
from ldm_jax import build
from ldm_jax.checkpoints import loading
from ldm_jax.data import pipeline
from ldm_jax.training import from_config
from tests.tools.test_train_and_sample import ROOT, tool

RNG = np.random.default_rng(0)


def folder(path, count=6, captions=True):
    """Images of several sizes, with x.txt beside x.png."""
    path.mkdir()
    for i in range(count):
        pixels = RNG.integers(0, 256, (40 + i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path / f'{i}.png')
        if captions:
            (path / f'{i}.txt').write_text(f'a thing number {i}\n')
    return path


def source(path, name='finetune'):
    config = configs.plain(configs.load(name))
    config['data']['path'] = str(path)
    return build.build('data', from_config.data(config, loading.load))


def test_images_of_any_size_become_the_models_with_their_captions(tmp_path):
    examples = source(folder(tmp_path / 'images'))
    assert (len(examples), examples.image_size) == (6, 32)
    assert examples[2]['image'].shape == (32, 32, 3)
    assert examples[2]['text'] == 'a thing number 2'
    assert source(tmp_path / 'images', 'from_scratch')[0]['image'].shape == (64, 64, 3)


def test_a_folder_that_cannot_be_trained_on_is_one_line_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No data at .*none'; give --config.data.path the folder"):
        source(tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='holds no images'):
        source(tmp_path / 'empty')
    for name in ('finetune', 'from_scratch'):
        bare = folder(tmp_path / f'bare_{name}', captions=False)
        with pytest.raises(ValueError, match=r"6 of 6 rows have no field 'caption'.*of x.txt beside x.png"):
            source(bare, name)
    partly = folder(tmp_path / 'partly')
    (partly / '3.txt').rename(partly / '3.png.txt')
    with pytest.raises(ValueError, match=r"1 of 6 rows have no field 'caption'; the first, 3.png"):
        source(partly)
    broken = folder(tmp_path / 'broken')
    for file in broken.glob('*.png'):
        file.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'no example that can be read: 5.png: not an image'):
        pipeline.first_readable(source(broken))


@pytest.mark.slow
def test_a_model_is_trained_on_with_its_own_settings_and_frozen_parts():
    for name, trained in (('finetune', {'unet'}), ('finetune:words', {'unet', 'text_encoder'})):
        stage, settings = from_config.stage(configs.plain(configs.load(name)), loading.load)
        assert stage.warm_start.keys() == trained
        assert stage.frozen.keys() == {'unet', 'first_stage', 'text_encoder'} - trained
        assert settings['models'] == loading.load('emoji32', []).settings['models']
        assert stage.conditioning == {'text': {'drop_rate': 0.1, 'null': 'empty'}}
        assert stage.objective == {'parameterization': 'v'}


@pytest.mark.slow
def test_from_a_folder_to_images_by_command(tmp_path):
    """From scratch, then trained on: the README's lines with small networks and few steps."""
    folder(tmp_path / 'mine')

    def train(config, workdir, **fields):
        run = dict(num_steps=2, batch_size=2, save_every=2, image_every=100)
        fields = {f'run.{key}': value for key, value in run.items()} | {'data.path': 'mine'} | fields
        given = [f'--config.{key}={value}' for key, value in fields.items()]
        tool('train.py', '--config', ROOT / 'configs' / config, '--workdir', workdir, *given, cwd=tmp_path)

    vae = {'models.first_stage.channels': 8, 'models.first_stage.channel_mult': '(1,1,1,1)'}
    train('from_scratch.py:first_stage', 'runs/scratch/first_stage', **vae)
    small = {
        'models.unet.channels': 24,
        'models.unet.channel_mult': '(1,)',
        'models.unet.depth': '(1,)',
        'models.unet.context_width': 16,
        'models.text_encoder.width': 16,
        'models.text_encoder.num_heads': 2,
        'models.text_encoder.num_layers': 1,
        'stage.samples.count': 0,
    }
    train('from_scratch.py', 'runs/scratch/model', **small)
    on = {'warm_start': 'runs/scratch/model/model', 'stage.samples.count': 0}
    train('finetune.py', 'runs/mine', **on)
    settings = json.loads((tmp_path / 'runs/mine/model/settings.json').read_text())
    assert settings['models'].keys() == {'unet', 'first_stage', 'text_encoder'}
    line = ['--model', 'runs/mine/model', '--prompt', 'a thing', '--num_images', 1, '--num_steps', 2]
    tool('sample.py', *line, '--out', 'out', cwd=tmp_path)
    with Image.open(next((tmp_path / 'out').glob('*.png'))) as image:
        assert image.size == (512, 512)  # 64, enlarged
