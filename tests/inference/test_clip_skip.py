"""clip_skip leaves out as many layers as diffusers does; its number counts from 0, ours from 1, as the web UI's."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.convert import convert
from ldm_jax.inference import model as parts_of
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from tests.checkpoints import folders
from tests.pipelines import pairs

PROMPTS = ['a red cat', 'two green apples']
SAMPLING = Sampling(guidance=Guidance(None))
LAYERS = 4


def settings_of(name):
    settings = copy.deepcopy(folders.TINY[name])
    for part in ('text_encoder', 'text_encoder_2'):
        if part in settings['models']:
            settings['models'][part]['num_layers'] = LAYERS
    return settings


@pytest.mark.slow
def test_contexts_are_those_of_diffusers():
    """SDXL's alone: diffusers' clip_skip for Stable Diffusion 1 asks transformers for an attribute that is gone."""
    diffusers = pytest.importorskip('diffusers')
    settings = settings_of('StableDiffusionXLPipeline')
    params = pairs.random_params(settings)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'model', Path(folder) / 'diffusers'
        store.save_model(source, settings, params)
        convert(str(source), str(target), to='diffusers')
        theirs = diffusers.DiffusionPipeline.from_pretrained(target)
    for clip_skip in (1, 2, 3):
        ours = pairs.ours(settings, params, clip_skip=clip_skip)
        (cond,), _ = prompt_conds(ours, SAMPLING, PROMPTS, '', (16, 16))
        call = dict(device='cpu', num_images_per_prompt=1, do_classifier_free_guidance=False)
        skip = None if clip_skip == 1 else clip_skip - 1
        expected = theirs.encode_prompt(PROMPTS, clip_skip=skip, **call)
        np.testing.assert_allclose(cond.context, expected[0].detach().numpy(), atol=2e-5)
        # The projected text is the last layer's, whatever is left out.
        np.testing.assert_allclose(cond.vector[:, :12], expected[2].detach().numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ('name', 'most'), [('StableDiffusionPipeline', LAYERS), ('StableDiffusionXLPipeline', LAYERS - 1)]
)
def test_no_more_layers_than_there_are(name, most):
    parts = parts_of.from_settings(settings_of(name))
    parts_of.skipping(parts, most)
    for clip_skip in (0, most + 1):
        with pytest.raises(ValueError, match=f'clip_skip must be from 1 to {most}; got {clip_skip}'):
            parts_of.skipping(parts, clip_skip)


def test_models_that_read_no_clip_text_have_nothing_to_skip():
    for name in ('LDMTextToImagePipeline', 'LDMPipeline'):
        with pytest.raises(ValueError, match='clip_skip is for models that read texts by CLIP'):
            parts_of.skipping(parts_of.from_settings(folders.TINY[name]), 2)
