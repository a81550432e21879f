"""tools/sample.py end to end on tiny models: what concerns it beside the tasks, which have a contract of their own."""

import collections
import copy
import pathlib

import numpy as np
import pytest
from PIL import Image

from ldm_jax.checkpoints import loading, store
from ldm_jax.inference import model as parts_of
from ldm_jax.inference import model_kinds
from ldm_jax.requests import check, inputs, png_settings, resolve, tasks
from tests import tiny_models
from tests.checkpoints.folders import clip_tokenizer
from tests.pipelines import pairs

TEXT = tiny_models.SETTINGS['text']
FEW = dict(prompt='apple', num_steps=2, sampler='ddim', num_images=1, scale=1)


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    return tiny_models.save(tmp_path_factory.mktemp('models'), 'text')


def pixels(report, i=0):
    with Image.open(report['images'][i]['path']) as image:
        return np.asarray(image)


def without(path, *names):
    """The text model without some parts, and what belongs to them."""
    settings, params = copy.deepcopy(TEXT), pairs.random_params(TEXT)
    for name in names:
        del settings['models'][name], params[name]
    if 'text_encoder' in names:
        del settings['tokenizer']
    store.save_model(str(path), settings, params)
    return str(path)


@pytest.mark.slow
def test_a_model_without_text_encoder_says_how_to_add_it_and_takes_it(text, tmp_path, sample):
    bare = without(tmp_path / 'bare', 'text_encoder')
    call = FEW | dict(out=tmp_path / 'out')
    error = sample(fails=True, model=bare, **call)
    assert 'no text encoder' in error
    assert '--text_encoder MODEL' in error
    expected = sample(model=text, **call)
    found = sample(model=bare, text_encoder=text, **call)
    np.testing.assert_array_equal(pixels(found), pixels(expected))


@pytest.mark.slow
def test_another_first_stage_is_taken(text, tmp_path, sample):
    other = tiny_models.save(tmp_path, 'text', seed=1)
    bare = without(tmp_path / 'bare', 'first_stage')
    call = FEW | dict(out=tmp_path / 'out')
    assert '--vae MODEL' in sample(fails=True, model=bare, **call)
    expected = sample(model=text, **call)
    np.testing.assert_array_equal(pixels(sample(model=bare, vae=text, **call)), pixels(expected))
    assert (pixels(sample(model=text, vae=other, **call)) != pixels(expected)).any()


def test_a_model_whose_folder_had_no_tokenizer_is_sampled_with_a_prompt(tmp_path, sample):
    """CLIP's vocabulary is in the package, and the kind of a tokenizer follows from its text encoder."""
    tokenizers = dict(
        bare={}, whole=dict(tokenizer=clip_tokenizer(49407))
    )  # OpenAI's pads with the end token
    for name, more in tokenizers.items():
        settings = {key: value for key, value in TEXT.items() if key != 'tokenizer'} | more
        store.save_model(str(tmp_path / name), settings, pairs.random_params(TEXT))
    call = FEW | dict(out=tmp_path / 'out')
    found = sample(model=tmp_path / 'bare', **call)
    assert found['task'] == 'text_to_image'
    np.testing.assert_array_equal(pixels(found), pixels(sample(model=tmp_path / 'whole', **call)))


def test_an_embedding_given_as_a_model_is_named(tmp_path, sample):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'style.pt'
    torch.save(
        {'string_to_token': {'*': 265}, 'string_to_param': {'*': torch.zeros(2, 8)}, 'name': 'x'}, path
    )
    error = sample(fails=True, model=path, **FEW, out=tmp_path / 'out')
    assert 'style.pt' in error
    assert 'embedding' in error
    assert "begins with ['*']" not in error


def test_a_drawn_seed_is_written_and_makes_the_same_image_again(text, tmp_path, sample):
    call = FEW | dict(model=text, out=tmp_path / 'out')
    drawn = sample(seed=-1, **call)
    seed = drawn['images'][0]['seed']
    assert drawn['request']['seed'] == seed >= 0
    assert png_settings.read_file(drawn['images'][0]['path'])['Seed'] == str(seed)
    np.testing.assert_array_equal(pixels(sample(seed=seed, **call)), pixels(drawn))
    assert sample(seed=-1, **call)['images'][0]['seed'] != seed


def test_warnings_are_one_line_each(text, tmp_path, sample):
    sample(**FEW | dict(prompt=''), model=text, out=tmp_path)
    assert sample.warned == [
        'warning: The prompt is empty: the images show whatever the model makes of no text.'
    ]
    Image.new('RGB', (200, 200)).save(tmp_path / 'large.png')
    made = sample(**FEW, model=text, out=tmp_path, init_image=tmp_path / 'large.png')
    (line,) = sample.warned
    assert line.startswith('warning: The image is 200 x 200, far from the 16 x 16')
    assert pixels(made).shape == (16, 16, 3)
    sample(**FEW, model=text, out=tmp_path)
    assert sample.warned == []


def test_a_previewed_run_makes_the_same_image(text, tmp_path, sample):
    call = FEW | dict(model=text, out=tmp_path)
    expected = pixels(sample(**call))
    np.testing.assert_allclose(pixels(sample(preview=1, **call)), expected.astype(int), atol=1)
    assert (tmp_path / 'preview.png').is_file()


@pytest.mark.slow
def test_a_way_between_prompts_is_a_sheet_and_each_of_its_images_is_made_again_from_its_text(
    text, tmp_path, sample
):
    call = FEW | dict(model=text, seed=3, interpolate=4)
    for prompts, images in ((('a cat', 'a dog', 'a "red" apple'), 1), (('a cat',), 3)):
        call |= dict(prompt=prompts, num_images=images)
        made = sample(**call, out=tmp_path / 'out')
        assert (made['task'], len(made['images'])) == ('interpolate', 4)
        assert pathlib.Path(made['sheet']).is_file()
        assert all((pixels(made, i) != pixels(made, i + 1)).any() for i in range(3))
        for i in (0, 2, 3):
            again = sample(from_png=made['images'][i]['path'], model=text, scale=1, out=tmp_path / 'again')
            assert len(again['images']) == 1
            assert sample.warned == []
            np.testing.assert_allclose(pixels(again), pixels(made, i).astype(int), atol=1)
            assert again['images'][0]['parameters'] == made['images'][i]['parameters']
    ends = sample(**FEW | dict(prompt=('a cat',), seed=3), model=text, out=tmp_path / 'end')
    np.testing.assert_allclose(pixels(ends), pixels(made, 0).astype(int), atol=1)


def test_a_request_is_resolved_once(text, tmp_path, sample, monkeypatch):
    """The model is found, opened, described and matched to a task by one call each."""
    counts = collections.Counter()

    def counted(module, name):
        function = getattr(module, name)

        def call(*args, **kwargs):
            counts[f'{module.__name__}.{name}'] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for module, names in {
        check: ['check'], inputs: ['read'], loading: ['resolve'], model_kinds: ['own_scale'],
        parts_of: ['from_settings'], resolve: ['resolve', 'describe'], store: ['open_model'], tasks: ['task_of'],
    }.items():  # fmt: skip
        for name in names:
            counted(module, name)
    sample(**FEW, model=text, out=tmp_path)
    assert len(counts) == 9
    assert set(counts.values()) == {1}, counts
