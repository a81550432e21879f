"""Prompt languages by tools/sample.py: every family and syntax to a PNG, and its text back to the same pixels."""

import copy

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from ldm_jax import knobs
from ldm_jax.checkpoints import store
from ldm_jax.requests import infotext, png_settings, resolve
from ldm_jax.requests.options import ModelOptions
from ldm_jax.requests.request import Request
from tests import tiny_models
from tests.pipelines import pairs

FEW = dict(num_steps=2, sampler='ddim', num_images=1, scale=1, guidance_scale=2)
PROMPTS = {
    'a1111': 'a (red:1.3) [cat:dog:1] moss BREAK two AND [a|b] :0.5',
    'comfyui': 'a (red:1.3) cat embedding:moss',
    'plain': 'a red cat',
}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """The path of a family's model."""
    folder = tmp_path_factory.mktemp('families')

    def saved(name):
        path = folder / name
        if not path.exists():
            if name == 'bert':
                settings = copy.deepcopy(pairs.settings_of('LDMTextToImagePipeline'))
            else:
                settings = copy.deepcopy(tiny_models.SETTINGS['sizes' if name == 'sdxl' else 'text'])
                settings['tokenizer']['pad_id'] = 0 if name == 'sd2' else 49407
            store.save_model(str(path), settings, pairs.random_params(settings))
        return str(path)

    return saved


@pytest.fixture(scope='module')
def words(tmp_path_factory):
    """A folder with the word 'moss' for the text encoders of all families."""
    folder = tmp_path_factory.mktemp('words')
    generator = np.random.default_rng(0)
    save_file({'emb_params': generator.standard_normal((2, 8), np.float32)}, folder / 'moss.safetensors')
    (folder / 'xl').mkdir()
    both = {
        name: generator.standard_normal((2, width), np.float32)
        for name, width in (('clip_l', 8), ('clip_g', 12))
    }
    save_file(both, folder / 'xl' / 'moss.safetensors')
    return folder


def pixels(report):
    with Image.open(report['images'][0]['path']) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ('family', 'syntax'),
    [(family, syntax) for family in ('sd1', 'sd2', 'sdxl', 'bert') for syntax in PROMPTS],
)
@pytest.mark.slow
def test_a_prompt_becomes_a_png_and_its_text_the_same_pixels(family, syntax, model, words, tmp_path, sample):
    given = {} if family == 'bert' else dict(embeddings=words / 'xl' if family == 'sdxl' else words)
    call = FEW | dict(model=model(family), out=tmp_path, negative_prompt='blurry (x:1.2)', **given)
    if syntax != 'a1111':
        call['prompt_syntax'] = syntax
    made = sample(prompt=PROMPTS[syntax], **call)
    text = infotext.read(made['images'][0]['parameters'])
    assert text['Prompt'] == PROMPTS[syntax]
    assert text.get('Prompt syntax', 'a1111') == syntax
    assert ('TI hashes' in text) == bool(given and syntax != 'plain')
    other = sample(prompt=PROMPTS[syntax].replace('red', 'blue'), **call)
    assert (pixels(made) != pixels(other)).any()
    path = made['images'][0]['path']
    again = sample(from_png=path, model=model(family), out=tmp_path, scale=1, **given)
    np.testing.assert_array_equal(pixels(again), pixels(made))
    if given and syntax == 'a1111':
        sample(from_png=path, model=model(family), out=tmp_path)
        assert any('learned words that are not there: moss' in line for line in sample.warned)


def test_styles_stand_around_the_prompt(model, tmp_path, sample):
    (tmp_path / 'styles.csv').write_text(
        'name,prompt,negative_prompt\nOil,"oil of {prompt}",flat\nSoft,soft,\n'
    )
    call = FEW | dict(model=model('sd1'), out=tmp_path, styles_file=tmp_path / 'styles.csv')
    made = sample(prompt='a cat', negative_prompt='x', styles=['Oil', 'Soft'], **call)
    text = infotext.read(made['images'][0]['parameters'])
    assert (text['Prompt'], text['Negative prompt']) == ('oil of a cat, soft', 'x, flat')
    assert "style 'Oli'" in sample(fails=True, prompt='a', styles=['Oli'], **call)
    assert '--styles_file' in sample(
        fails=True, prompt='a', styles=['Oil'], **(call | dict(styles_file='none'))
    )


def test_mistakes_are_one_line_before_a_model_is_read(model, tmp_path, sample):
    call = FEW | dict(model=model('sd1'), out=tmp_path)
    assert "weight '1.2.3' in the prompt" in sample(fails=True, prompt='a (b:1.2.3)', **call)
    assert "'klingon'" in sample(fails=True, prompt='a', prompt_syntax='klingon', **call)
    assert 'neither a file nor a folder' in sample(fails=True, prompt='a', embeddings='none', **call)


def test_settings_of_the_web_ui_give_its_text_arrays(model):
    text = (
        'a (red:1.3) [cat:dog:0.5], # mine\nNegative prompt: (blurry)\nSteps: 4, Sampler: Heun, Schedule type: Karras, '
        'CFG scale: 7, Seed: 1, Size: 16x16, Emphasis: No norm, Pad conds: True, Version: v1.10.1'
    )
    request = knobs.make(Request, png_settings.read(infotext.read(text)))
    plan = resolve.resolve(request, ModelOptions(model('sd1')))
    prompting = plan.sampling.prompting
    assert (prompting.emphasis, prompting.padding, prompting.syntax) == ('no_norm', 'empty', 'a1111')
    assert not prompting.old_editing
