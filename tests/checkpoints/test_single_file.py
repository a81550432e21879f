"""Layouts of single files: every key of every public one is used once, or left out with a reason."""

import functools
import gc

import pytest

from ldm_jax import build, trees
from ldm_jax.checkpoints.layouts import single_file
from tests.checkpoints import single_files
from tests.checkpoints.single_files import blank, listings

NAMES = sorted(listings())
# Tracing a network for its shapes takes seconds; the keys alone are compared for all.
FAST = ('kl_f16', 'vq_f8', 'sd15')
# What the listings hold besides parameters, and the first key is there whatever the model.
BESIDE = {
    'sd15': {'betas', 'model_ema.decay', 'cond_stage_model.transformer.text_model.embeddings.position_ids'},
    'sd2_depth': {'depth_model.model.scratch.0.weight', 'cond_stage_model.model.text_projection'},
    'sd2_base': {'cond_stage_model.model.transformer.resblocks.23.ln_1.weight'},
    'sd2_sgm': {'conditioner.embedders.0.model.transformer.resblocks.23.ln_1.weight', 'denoiser.sigmas'},
    'sd21_unclip_l': {'embedder.model.transformer.resblocks.0.ln_1.weight', 'noise_augmentor.betas'},
    'sdxl': {'denoiser.sigmas', 'conditioner.embedders.1.model.logit_scale'},
    'x4_upscaler': {'low_scale_model.alphas_cumprod'},
    'ldm_lsun_churches256': {'scale_factor', 'model_ema.num_updates'},
    'ldm_inpainting_big': {'cond_stage_model.quantize.embedding.weight'},
    'ldm_layout2img': {'cond_stage_model.transformer.to_logits.weight'},
    'kl_f8': {'loss.logvar'},
    'vq_f8': {'loss.discriminator.main.0.weight'},
}


@pytest.fixture(autouse=True, scope='module')
def no_collection():
    """Tracing makes millions of small objects that live on; looking through them is a third of the time."""
    gc.disable()
    yield
    gc.enable()


@functools.cache  # many models share a part
def leaves(model):
    return trees.named(trees.shapes(model))


def used(layout):
    return {key for rule in layout.rules for key in rule.torch}


@pytest.mark.parametrize('name', NAMES)
def test_every_key_is_used_or_has_a_reason(name):
    keys, settings = listings()[name].keys(), single_files.config(name)
    layout = single_file.layout(settings, keys)
    assert used(layout) <= keys
    beside = keys - used(layout)
    assert [key for key in beside if not layout.ignored(key)] == []
    assert BESIDE.get(name, set()) <= beside
    # What is exported are the keys that are used, but for those of the other home of SD 2.
    if name != 'sd2_sgm':
        assert used(single_file.layout(settings)) == used(layout)


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES]
)
def test_every_shape_is_the_model_s(name):
    listing, settings = listings()[name], single_files.config(name)
    shapes = {
        f'{part}/{path}': leaf.shape
        for part, model in build.parts(settings).items()
        for path, leaf in leaves(model).items()
    }
    for keys in (listing, None):  # what is read, and what is exported
        layout = single_file.layout(settings, keys)
        assert {path for rule in layout.rules for path in rule.flax} == shapes.keys()
        for rule in layout.rules:
            arrays = rule.to_torch(tuple(blank(shapes[path]) for path in rule.flax))
            for key, array in zip(rule.torch, arrays, strict=True):
                assert key not in listing or array.shape == listing[key].shape, key
