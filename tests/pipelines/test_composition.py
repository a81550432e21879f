"""Several prompts at once (AND), from the text to the latents."""

import jax
import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

SAMPLING = Sampling('euler', num_steps=3, guidance=Guidance(3.0))
CALL = dict(size=(16, 16), seed=[5])


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(folders.TINY['StableDiffusionPipeline'])


def made(pipeline, *prompts, **options):
    call = CALL | {'seed': [5] * len(prompts)} | options
    return text_to_image(pipeline, list(prompts), 'blurry', **dict(sampling=SAMPLING) | call)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.slow
def test_weights_add_up_and_a_prompt_without_weight_is_not_there(pipeline):
    one, other, both = made(pipeline, 'a red cat', 'two dogs', 'a red cat AND two dogs')
    assert np.abs(one - both).max() > 0.01
    assert np.abs(other - both).max() > 0.01
    halves, none = made(pipeline, 'a red cat :0.25 AND a red cat :0.75', 'a red cat :0 AND two dogs')
    close(halves, one)
    close(none, other)


@pytest.mark.slow
def test_a_composition_is_the_same_beside_prompts_of_other_lengths(pipeline):
    (both,) = made(pipeline, 'a red cat :1.5 AND two dogs :-0.5')
    three = made(pipeline, 'a AND b AND c', 'a red cat :1.5 AND two dogs :-0.5', 'a red cat')
    close(three[1], both)
    close(three[2], made(pipeline, 'a red cat')[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    'changes',
    [
        dict(guidance_rule='projected', apg_eta=0.5),
        dict(guidance_rescale=0.7),
        dict(perturbed_scale=2.0),
        dict(guidance_interval=(0.5, 5.0)),
    ],
)
def test_other_kinds_of_guidance_take_the_composition_for_one_prompt(pipeline, changes):
    sampling = knobs.replace(SAMPLING, **changes)
    one, halves = made(pipeline, 'a red cat', 'a red cat :0.5 AND a red cat :0.5', sampling=sampling)
    close(halves, one)
    assert np.abs(one - made(pipeline, 'a red cat')[0]).max() > 1e-3


def test_the_parts_of_a_prompt_are_encoded_one_by_one(pipeline):
    conds, guidance = prompt_conds(pipeline, SAMPLING, ['a red cat :2 AND two dogs', 'a'], '', (16, 16))
    expected, _ = prompt_conds(pipeline, SAMPLING, ['two dogs', 'a'], '', (16, 16))
    assert len(conds) == 3
    jax.tree.map(np.testing.assert_array_equal, conds[2], expected[1])
    np.testing.assert_array_equal(guidance.weights, [[2, 1], [1, 0]])
    plain = knobs.replace(SAMPLING, guidance_scale=None)
    with pytest.raises(ValueError, match='AND.*give a guidance_scale'):
        prompt_conds(pipeline, plain, ['a AND b'], '', (16, 16))
