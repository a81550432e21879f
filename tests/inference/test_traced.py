"""Gradients through a whole text-to-image run are those of finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

SETTINGS = folders.TINY['StableDiffusionPipeline']
SAMPLING = Sampling('dpmpp_2m', num_steps=2, guidance=Guidance(2.0))
PROMPTS, SEEDS = ['a red cat', 'a dog'], [5, 6]


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(SETTINGS)


def direction(tree, seed):
    """Random numbers in the shape of a tree, small beside its leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    generator = np.random.default_rng(seed)
    moved = [np.float32(generator.standard_normal(leaf.shape) * (1e-3 + np.std(leaf))) for leaf in leaves]
    return jax.tree.unflatten(treedef, moved)


def assert_slopes(loss, at, directions, h=3e-3):
    """The gradient of a loss along each direction is what finite differences say."""
    loss, slope = jax.jit(loss), jax.jit(jax.grad(loss))(at)
    for towards in directions:
        pairs_of_leaves = zip(jax.tree.leaves(slope), jax.tree.leaves(towards), strict=True)
        along = float(sum(np.vdot(a, b) for a, b in pairs_of_leaves))
        after, before = (loss(jax.tree.map(lambda a, d, s=s: a + s * h * d, at, towards)) for s in (1, -1))
        assert abs(along) > 1e-4
        np.testing.assert_allclose(along, (after - before) / (2 * h), rtol=2e-2)


@pytest.mark.slow
def test_of_the_parameters_of_every_network(pipeline):
    traced = pipeline.traced()

    def loss(params):
        images = text_to_image(
            dataclasses.replace(traced, params=params), PROMPTS, seed=SEEDS, sampling=SAMPLING
        )
        return jnp.mean(images * np.sin(np.arange(images.size)).reshape(images.shape))

    still = jax.tree.map(np.zeros_like, pipeline.params)
    parts = ('text_encoder', 'unet', 'first_stage')
    assert_slopes(
        loss, pipeline.params, [still | {part: direction(pipeline.params[part], 1)} for part in parts]
    )


@pytest.mark.slow
def test_of_the_latents_that_it_starts_from(pipeline):
    traced = pipeline.traced()
    size = traced.size()
    _, levels = SAMPLING.plan(traced.parts.schedule)
    conds, _ = prompt_conds(traced, SAMPLING, PROMPTS, '', size)
    x = traced.noise(SEEDS, size)

    def loss(x):
        return jnp.mean(jnp.sin(traced.sample(SAMPLING, x, levels, conds, SEEDS)))

    assert_slopes(loss, x, [direction(x, 2)])
    with pytest.raises(ValueError, match='dpm_fast makes its own steps'):
        traced.sample(Sampling('dpm_fast', num_steps=2), x, levels, conds, SEEDS)


@pytest.mark.slow
def test_its_images_are_those_of_the_compiled_programs(pipeline):
    plain = text_to_image(pipeline, PROMPTS, seed=SEEDS, sampling=SAMPLING)
    traced = text_to_image(pipeline.traced(), PROMPTS, seed=SEEDS, sampling=SAMPLING)
    assert isinstance(traced, jax.Array)
    np.testing.assert_allclose(traced, plain, atol=1e-5)
