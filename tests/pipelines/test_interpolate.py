"""The way between prompts and seeds: its ends are the images of its stops, and between them noise stays noise."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.interpolate import interpolate, segments, stops
from ldm_jax.pipelines.text_to_image import text_to_image
from tests import tiny_models
from tests.pipelines import pairs

DDIM = Sampling('ddim', num_steps=2, guidance=Guidance(2.0))
PROMPTS = ['a red cat', 'a dog', 'two apples :1.5 AND a house']


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(tiny_models.SETTINGS['text'])


def images(pipeline, prompts, seed, shares, sampling=DDIM):
    return interpolate(
        pipeline, prompts, 'blurry', shares=shares, seed=seed, size=(16, 16), sampling=sampling
    )


def close(ours, theirs, atol=1e-4):
    np.testing.assert_allclose(ours, theirs, atol=atol)


@pytest.mark.slow
def test_a_way_through_prompts_passes_the_image_of_each(pipeline):
    expected = text_to_image(pipeline, PROMPTS, 'blurry', size=(16, 16), seed=[5, 5, 5], sampling=DDIM)
    found = images(pipeline, PROMPTS, 5, [0, 0.25, 0.5, 1])
    close(found[[0, 2, 3]], expected)
    steps = [np.abs(found[1] - found[i]).max() for i in (0, 2)]
    assert min(steps) > 1e-3


@pytest.mark.slow
def test_a_way_through_seeds_passes_the_image_of_each(pipeline):
    expected = text_to_image(pipeline, ['a'] * 3, 'blurry', size=(16, 16), seed=[7, 8, 9], sampling=DDIM)
    close(images(pipeline, 'a', [7, 8, 9], [0, 0.5, 1]), expected)
    both = images(pipeline, PROMPTS, [7, 8, 9], [0.5])
    close(both, text_to_image(pipeline, PROMPTS[1], 'blurry', size=(16, 16), seed=8, sampling=DDIM))


@pytest.mark.slow
def test_between_seeds_the_image_is_that_of_a_variation(pipeline):
    sampling = Sampling('euler_ancestral', num_steps=2, variation_seed=8, variation_strength=0.3)
    expected = text_to_image(pipeline, 'a', 'blurry', size=(16, 16), seed=7, sampling=sampling)
    plain = Sampling('euler_ancestral', num_steps=2)
    close(images(pipeline, 'a', [7, 8], [0.3], plain), expected)


def test_an_image_is_the_same_alone_and_among_others(pipeline):
    close(images(pipeline, PROMPTS, 5, [0.3]), images(pipeline, PROMPTS, 5, [0, 0.3, 0.9])[1:2])


def test_shares_fall_between_stops():
    before, within = segments([0, 0.25, 0.5, 0.75, 1], 3)
    assert before == [0, 0, 1, 1, 1]
    assert within == [0, 0.5, 0, 0.5, 1]
    assert stops(['a', 'b'], 3) == (['a', 'b'], [3, 3])
    assert stops('a', [1, 2, 3]) == (['a'] * 3, [1, 2, 3])
    for wrong in (('a', 1), (['a'], [1]), (['a', 'b'], [1, 2, 3])):
        with pytest.raises(ValueError, match='A way has two stops or more'):
            stops(*wrong)
    with pytest.raises(ValueError, match=r'from 0 to 1; got \[0, 1.5\]'):
        segments([0, 1.5], 2)
