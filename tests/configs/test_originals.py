"""The recipes of published models: each makes a stage, at full size, with the published numbers."""

import pytest

import configs
from configs import originals
from ldm_jax import build
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.training import from_config, optimizer

# Learning rate of a batch: table 12 and 15 of the paper, and the model cards.
RATES = {
    'instruct_pix2pix': 1e-4, 'inpainting_sd15': 1e-4, 'depth_sd2': 1e-4, 'x4_upscaler': 1e-4,
    'super_resolution': 6.4e-5, 'inpainting_ldm': 1e-6, 'layout': 4.8e-5, 'semantic': 4.8e-5,
    'class_conditional': 1e-4, 'celeba': 9.6e-5, 'ffhq': 8.4e-5, 'bedrooms': 9.6e-5, 'churches': 5e-5,
}  # fmt: skip
FAST = ('celeba',)
NAMED = {originals.SD15: 'sd15', originals.SD2: 'sd2_base', originals.UPSCALER: 'x4_upscaler'}


def load(model, parts):
    """A published model by the name that a recipe gives it, without its parameters."""
    name = NAMED.get(model, model.removeprefix('models/'))
    settings = configs.plain(configs.load(name))
    networks = {part: build.build('models', settings['models'][part]) for part in parts}
    return Loaded(settings, networks, {part: {} for part in parts}, model)


@pytest.mark.parametrize('name', originals.VARIANTS)
def test_the_rate_of_a_batch_is_the_published_one(name):
    config = configs.plain(configs.load(f'originals:{name}'))
    run = config['run']
    tx = optimizer.optimizer(run['num_steps'], run['batch_size'], **config['optimizer'])
    assert float(tx.rate(run['num_steps'] // 2)) == pytest.approx(RATES[name], rel=1e-5)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in originals.VARIANTS]
)
def test_each_recipe_makes_a_stage(name):
    config = configs.plain(configs.load(f'originals:{name}'))
    stage, settings = from_config.stage(config, load)
    base, conditioning, _ = originals.RECIPES[name]
    published = configs.plain(configs.load(base))
    assert set(settings['models']) == set(published['models'])
    assert build.parts(settings)['unet'] == build.parts(published)['unet']
    assert stage.objective['loss'] == published['loss']
    assert set(stage.conditioning) == set(conditioning)
