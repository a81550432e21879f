"""configs/finetune.py and configs/from_scratch.py: from a folder of images and captions to a model."""

import jax
import numpy as np
import pytest
from PIL import Image

import configs
import ldm_jax
from ldm_jax import build
from ldm_jax.checkpoints import loading
from ldm_jax.data import pipeline
from ldm_jax.training import from_config, overrides, start
from ldm_jax.training.preemption import Preemption

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
def test_from_a_folder_to_images(tmp_path, monkeypatch):
    """From scratch, then trained on, then sampled: the pages' commands with small networks and few steps."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / 'mine')

    def train(name, workdir, **fields):
        run = dict(num_steps=2, batch_size=2, save_every=2, image_every=100)
        fields = {f'run.{key}': value for key, value in run.items()} | {'data.path': 'mine'} | fields
        given = [(key, str(value)) for key, value in fields.items()]
        config = overrides.apply(configs.plain(configs.load(name)), given)
        with Preemption() as signals:
            start.train(config, tmp_path / workdir, signals)

    vae = {'models.first_stage.channels': 8, 'models.first_stage.channel_mult': '(1,1,1,1)'}
    train('from_scratch:first_stage', 'runs/scratch/first_stage', **vae)
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
    train('from_scratch', 'runs/scratch/model', **small)
    on = {'warm_start': 'runs/scratch/model/model', 'stage.samples.count': 0}
    train('finetune', 'runs/mine', **on)
    pipeline = ldm_jax.open('runs/mine/model')
    images = ldm_jax.text_to_image(pipeline, 'a thing', sampling=ldm_jax.Sampling(num_steps=2))
    assert images.shape == (1, 64, 64, 3)
    assert np.isfinite(images).all()
    for name in ('first_stage', 'text_encoder'):  # as they were, but that numbers are of 16 bits
        ours, theirs = (
            loading.load(model, [name]).params for model in ('runs/mine/model', 'runs/scratch/model/model')
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
