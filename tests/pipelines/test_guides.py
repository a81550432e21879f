"""Kinds of guidance from their settings to the latents of one step, which are the prediction itself."""

import copy

import numpy as np
import pytest

from ldm_jax import build, knobs
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.inference import model as parts_of
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

SETTINGS = folders.TINY['StableDiffusionPipeline']
PARAMS = pairs.random_params(SETTINGS)
ONE = Sampling('euler', num_steps=1, guidance=Guidance(None))


def loaded(settings, params):
    return Loaded(settings, build.parts(settings), params, '')


@pytest.fixture(scope='module')
def worse():
    """The model with another, smaller U-Net."""
    settings = copy.deepcopy(SETTINGS)
    settings['models']['unet']['channels'] //= 2
    return loaded(settings, PARAMS | {'unet': pairs.random_params(settings, seed=1)['unet']})


@pytest.fixture(scope='module')
def pipelines(worse):
    """The model, the worse one, and the model with that as weak model."""
    return pairs.ours(SETTINGS, PARAMS), pairs.ours(worse.settings, worse.params), guided_by(worse)


def guided_by(weak_model):
    return pairs.ours(SETTINGS, PARAMS, weak_model=weak_model)


def latents(pipeline, **changes):
    sampling = knobs.replace(ONE, **changes)
    call = dict(size=(16, 16), seed=5, sampling=sampling)
    return pairs.made_by_ours(text_to_image, pipeline, 'a red cat', 'blurry', **call)[0]


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_autoguidance_is_away_from_the_guide(pipelines):
    good, bad = (latents(pipeline) for pipeline in pipelines[:2])
    assert np.abs(good - bad).max() > 0.1 * np.abs(good).max()
    for scale in (1.0, 2.5):
        close(latents(pipelines[2], autoguidance_scale=scale), bad + scale * (good - bad))
    both = latents(pipelines[2], autoguidance_scale=2.5, guidance_scale=3.0)
    close(both, latents(pipelines[0], guidance_scale=3.0) + 1.5 * (good - bad))
    # Where there is no guidance the weak model is not asked either.
    close(latents(pipelines[2], autoguidance_scale=2.5, guidance_interval=(0.0, 0.1)), good)
    close(latents(pipelines[2]), good)


@pytest.mark.slow
def test_cfg_pp_takes_the_guide_for_the_unconditional_model(pipelines):
    close(latents(pipelines[2], sampler='euler_cfg_pp', autoguidance_scale=1.0), latents(pipelines[0]))


@pytest.mark.slow
def test_zero_init_and_thresholding_reach_the_prediction(pipelines):
    plain = latents(pipelines[0], guidance_scale=3.0)
    size = np.quantile(np.abs(plain), 0.9)
    assert size > 1
    found = latents(pipelines[0], guidance_scale=3.0, percentile=0.9)
    close(found, np.clip(plain, -size, size) / size)
    _, levels = ONE.plan(pipelines[0].parts.schedule)
    x = starting_noise(pipelines[0], ONE, levels, [5], (16, 16))
    still = latents(pipelines[0], guidance_scale=3.0, cfg_zero_share=0.5)
    close(still, x / (levels.alpha[0] + levels.sigma[0]))
    close(latents(pipelines[0], guidance_scale=3.0, cfg_zero_share=0.01), plain)


def test_a_guide_that_does_not_go_with_the_model_is_refused(pipelines):
    described = parts_of.from_settings(SETTINGS)
    for change, words in [
        (dict(parameterization='v'), 'its parameterization is v, not eps'),
        (dict(scaling_factor=1.0), 'its scaling_factor is 1.0, not'),
    ]:
        with pytest.raises(ValueError, match=words):
            parts_of.with_weak_model(described, SETTINGS | change)
    with pytest.raises(ValueError, match=r'its conditioned_on is .*context=36.*, not .*context=16'):
        parts_of.with_weak_model(
            described,
            folders.TINY['StableDiffusionXLPipeline'] | {'scaling_factor': SETTINGS['scaling_factor']},
        )
    with pytest.raises(ValueError, match='open the pipeline with one'):
        latents(pipelines[0], autoguidance_scale=2.0)
