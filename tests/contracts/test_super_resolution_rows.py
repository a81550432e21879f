"""A model of pixels that enlarges, by configs/grocery_sr.py: trained on degraded images, sampled by sample.py."""

import jax
import numpy as np
import pytest
from PIL import Image

import configs
from ldm_jax import build
from ldm_jax.checkpoints import store
from ldm_jax.data import pipeline
from ldm_jax.training import from_config
from tests.data.images import image


@pytest.mark.slow
def test_two_steps_on_degraded_images_make_a_model_that_enlarges_four_times(tmp_path, sample):
    for n in range(4):
        (tmp_path / f'{n}.png').write_bytes(image(n, (20, 24)))
    config = configs.plain(configs.load('grocery_sr'))
    config['stage']['latent_size'] = 16
    config['models']['unet'] |= dict(
        channels=8, channel_mult=[1, 2], depth=[0, 0], head_width=8, num_groups=4
    )
    config['data']['source'] |= dict(image_size=16)
    config['data']['source']['source'] = dict(name='image_folder', path=str(tmp_path), text='')
    config['run'] |= dict(num_steps=2, batch_size=4)
    stage, settings = from_config.stage(config, None)
    examples = stage.prepare(build.build('data', config['data']))
    batch = pipeline.stack([examples[i] for i in range(4)])
    assert batch['small'].shape == (4, 4, 4, 3)
    work = from_config.work(config, stage, from_config.Run(**config['run']))
    state, step = work.init(jax.random.key(0)), jax.jit(work.step)
    for _ in range(2):
        state, metrics = step(state, batch, jax.random.key(1))
    assert np.isfinite(metrics['loss'])

    def save(settings, params, dtype):
        store.save_model(str(tmp_path / 'model'), settings, params)

    from_config.export(config, stage, settings, state.params, examples, save)
    small = tmp_path / 'small.png'
    Image.fromarray(batch['small'][0]).save(small)
    options = dict(num_images=1, num_steps=2, scale=1, out=tmp_path / 'out')
    made = sample(model=tmp_path / 'model', init_image=small, **options)
    with Image.open(made['images'][0]['path']) as found:
        assert found.size == (16, 16)
