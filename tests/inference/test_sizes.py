"""Facts of an image's making, as SDXL is conditioned on them, against diffusers'."""

import numpy as np
import pytest

from ldm_jax.inference.settings import Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines import text_to_image
from ldm_jax.pipelines.prompts import prompt_conds
from tests.pipelines import pairs

BASE, REFINER = 'StableDiffusionXLPipeline', 'StableDiffusionXLImg2ImgPipeline'
WANTED = Sizes(original=(100, 60), crop=(7, 9), target=(50, 40), aesthetic_score=7.5)
UNWANTED = Sizes(original=(30, 20), crop=(1, 2), target=(8, 4), aesthetic_score=1.5)


def embedded(cond):
    """The sinusoids behind the projected text, of which both have 12 numbers."""
    return cond.vector[0, 12:]


@pytest.mark.slow
@pytest.mark.parametrize('name', [BASE, REFINER])
@pytest.mark.parametrize(
    ('sizes', 'negative_sizes'), [(None, None), (WANTED, None), (WANTED, UNWANTED)], ids=['no', 'one', 'two']
)
def test_numbers_are_those_of_diffusers(name, sizes, negative_sizes):
    torch = pytest.importorskip('torch')
    pytest.importorskip('diffusers')
    ours, theirs = pairs.pair(name)
    found, _ = prompt_conds(ours, Sampling(), ['a red cat'], 'blurry', (16, 32), sizes, negative_sizes)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            theirs.unet, 'forward', lambda *_, added_cond_kwargs, **__: told.append(added_cond_kwargs)
        )
        arguments = dict(prompt='a red cat', negative_prompt='blurry', num_inference_steps=2)
        if name == BASE:
            arguments |= dict(height=16, width=32)
        else:
            arguments |= dict(image=torch.zeros(1, 3, 16, 32), strength=1.0)
        for prefix, given in (('', sizes), ('negative_', negative_sizes or sizes)):
            if given is None:
                continue
            arguments |= {
                f'{prefix}original_size': given.original,
                f'{prefix}crops_coords_top_left': given.crop,
                f'{prefix}target_size': given.target,
            }
            if name == REFINER and not (prefix and negative_sizes is None):
                arguments[f'{prefix}aesthetic_score'] = given.aesthetic_score
        with pytest.raises(TypeError):  # for want of an answer
            theirs(**arguments)
    time_ids = told[0]['time_ids'].numpy()
    for cond, numbers in zip(found, time_ids, strict=True):
        angles = numbers[:, None] * np.array([1.0, 1e-2])
        expected = np.concatenate([np.cos(angles), np.sin(angles)], 1).ravel()
        np.testing.assert_allclose(embedded(cond), expected, atol=1e-4)


def test_sizes_are_refused_where_they_are_empty_or_not_taken():
    with pytest.raises(ValueError, match=r'original must be \(H, W\) of at least one pixel; got \(0, 5\)'):
        Sizes(original=(0, 5))
    with pytest.raises(ValueError, match=r'crop must be \(top, left\); got \(1,\)'):
        Sizes(crop=(1,))
    pipeline = pairs.model('StableDiffusionPipeline')
    with pytest.raises(ValueError, match='This model is not conditioned on sizes: leave Sizes'):
        text_to_image.text_to_image(pipeline, 'a', sizes=Sizes())
