"""A text encoder, or a first stage, from another model: converted together, loaded together, or refused by name."""

import copy

import jax
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.choice import Choice
from ldm_jax.checkpoints.convert import convert
from tests.checkpoints import folders

WHOLE = folders.TINY['StableDiffusionPipeline']
OTHER = folders.TINY['StableDiffusionPipeline (2)'] | dict(scaling_factor=0.9)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """A U-Net alone, a whole model of the same widths, and others that do not fit."""
    root = tmp_path_factory.mktemp('models')
    save(root / 'whole', WHOLE)
    save(root / 'other', OTHER, 2)
    alone = WHOLE | dict(models={'unet': WHOLE['models']['unet']})
    alone.pop('tokenizer')
    save(root / 'unet', alone)
    wide = copy.deepcopy(OTHER)
    wide['models']['text_encoder']['width'] = 24
    wide['models']['first_stage']['z_channels'] = 8
    save(root / 'wide', wide | dict(models={p: m for p, m in wide['models'].items() if p != 'unet'}))
    convert(str(root / 'other'), str(root / 'other.safetensors'), to='compvis')
    return root


def save(path, settings, scale=1):
    params = folders.random_params(settings)
    params = jax.tree.map(lambda leaf: scale * leaf, params)
    store.save_model(path, settings, params)


def params_of(path, part):
    return trees.named(store.load_model(path, [part])[1][part])


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf)


@pytest.mark.parametrize('source', ['other', pytest.param('other.safetensors', marks=pytest.mark.slow)])
def test_a_unet_alone_gets_what_it_lacks(models, tmp_path, source):
    take = {'text_encoder': str(models / source), 'first_stage': str(models / 'whole')}
    report = convert(str(models / 'unet'), str(tmp_path / 'out'), take=take)
    assert report['source']['text_encoder of']['name'] == source
    settings = store.open_model(tmp_path / 'out').settings
    assert settings['models'].keys() == {'unet', 'text_encoder', 'first_stage'}
    assert settings['tokenizer']['pad_id'] == 0
    assert settings['scaling_factor'] == WHOLE['scaling_factor']  # of the U-Net's own training
    same(params_of(tmp_path / 'out', 'text_encoder'), params_of(models / 'other', 'text_encoder'))
    same(params_of(tmp_path / 'out', 'first_stage'), params_of(models / 'whole', 'first_stage'))
    same(params_of(tmp_path / 'out', 'unet'), params_of(models / 'unet', 'unet'))


def test_parts_that_are_there_are_replaced(models, tmp_path):
    report = convert(
        str(models / 'whole'), str(tmp_path / 'out'), take={'first_stage': str(models / 'other')}
    )
    assert report['parts'].keys() == {'unet', 'text_encoder', 'first_stage'}
    same(params_of(tmp_path / 'out', 'first_stage'), params_of(models / 'other', 'first_stage'))
    same(params_of(tmp_path / 'out', 'text_encoder'), params_of(models / 'whole', 'text_encoder'))
    assert store.open_model(tmp_path / 'out').settings['scaling_factor'] == WHOLE['scaling_factor']


@pytest.mark.parametrize(
    ('take', 'words'),
    [
        ({'text_encoder': 'unet'}, "unet has no text_encoder to take; it has \\['unet'\\]"),
        ({'first_stage': 'unet'}, 'unet has no first_stage to take'),
        (
            {'text_encoder': 'wide'},
            'text encoder of .*wide gives vectors 24 wide; the U-Net reads vectors 16 wide',
        ),
        ({'first_stage': 'wide'}, 'first_stage of .*wide makes latents of 8 channels; the U-Net works on 4'),
        ({'unet': 'whole'}, "'unet'; have \\['first_stage', 'text_encoder'\\]"),
        ({'text_encoder': 'nowhere'}, 'nothing at .*nowhere'),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(models, tmp_path, take, words):
    take = {part: str(models / name) for part, name in take.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        convert(str(models / 'unet'), str(tmp_path / 'out'), take=take, choice=Choice())
    assert list(tmp_path.iterdir()) == []
