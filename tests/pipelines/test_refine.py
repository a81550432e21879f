"""Base and refiner in one run against diffusers' with the same weights and noise, and where one hands over."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.inference import model as parts_of
from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.inference.programs import Programs
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.inference.sizes import Sizes
from ldm_jax.pipelines.refine import check, handover, refine
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond
from tests import walks
from tests.pipelines import pairs

BASE, REFINER = 'StableDiffusionXLPipeline', 'StableDiffusionXLImg2ImgPipeline'
PROMPTS, NEGATIVE = ['a red cat', 'two green apples on a table'], 'blurry'
DDIM = Sampling(
    'ddim', 'leading', num_steps=5, guidance=Guidance(3.0), start='total', noise_source='torch_cpu'
)


@pytest.mark.slow
def test_images_are_those_of_diffusers():
    pytest.importorskip('diffusers')
    (base, their_base), (refiner, their_refiner) = pairs.pair(BASE), pairs.pair(REFINER)
    size, sizes = (16, 32), dict(original_size=(40, 24), crops_coords_top_left=(3, 5))
    call = dict(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        guidance_scale=3.0,
        num_inference_steps=5,
        **sizes,
    )
    for pipe in (their_base, their_refiner):
        pipe.scheduler = pairs.ddim(pipe)
    handed = their_base(
        **call,
        height=size[0],
        width=size[1],
        latents=pairs.noise([3, 4], base.parts.latents(1, size)[1:]),
        denoising_end=0.7,
        output_type='latent',
    ).images
    expected = pairs.made_by_theirs(
        their_refiner, **call, image=handed, denoising_start=0.7, negative_crops_coords_top_left=(3, 5)
    )
    latents, images = pairs.made_by_ours(
        lambda last, *args, **options: refine(base, last, *args, **options),
        refiner,
        PROMPTS,
        NEGATIVE,
        share=0.7,
        size=size,
        seed=3,
        sampling=DDIM,
        sizes=Sizes(original=(40, 24), crop=(3, 5)),
    )
    assert images.shape == (2, 16, 32, 3)
    pairs.assert_same(latents, expected[0], images, expected[1])


@pytest.mark.parametrize('grid', ['leading', 'trailing', 'karras'])
def test_the_base_has_the_levels_that_diffusers_gives_it(grid):
    levels = Sampling('ddim', grid, num_steps=10).plan(Schedule())[1]
    times = np.asarray(levels.t)
    for share in (0.3, 0.5, 0.8):
        first = handover(Schedule(), levels, share)
        cutoff = round(1000 - share * 1000)
        assert first == (times[:-1] >= cutoff).sum()
        assert len(times) - 1 - first == (times[:-1] < cutoff).sum()


class Toy(nn.Module):
    """Stands in for a U-Net of latents [B, 2, 2, 4]."""

    in_channels: int = 4
    out_channels: int = 4
    downscale: int = 1

    def __call__(self, x, t, cond):
        return jnp.tanh(x) + 1e-3 * t[..., None, None, None]


def toy():
    network = parts_of.Parts(Toy(), Toy(), Schedule(), 'eps', scaling_factor=1.0, latent_size=2)
    programs = Programs(network, tuple(jax.devices()[:1]))
    return Pipeline(network, {'unet': {}}, (), programs)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['deis', 'dpm_fast'])
def test_the_base_stops_where_the_refiner_begins(name):
    """To a sampler with memory of its steps that is not the end; one that makes its own steps ends there."""
    sampling, pipeline = Sampling(name, 'trailing', num_steps=6, guidance=Guidance(None)), toy()
    sampler, levels = sampling.plan(Schedule())
    x = np.random.default_rng(0).standard_normal((2, 2, 2, 4)).astype(np.float32)

    def denoise(x, level):
        out = pipeline.parts.unet(x, jnp.broadcast_to(level.t, len(x)), None)
        return (x - level.sigma * out) / level.alpha

    stopped = pipeline.sample(sampling, x, levels, (Cond(),), [0, 1], stop=3)
    ended = pipeline.sample(sampling, x, jax.tree.map(lambda a: a[:4], levels), (Cond(),), [0, 1])
    if name == 'deis':  # of lower order at the end of few steps
        expected = walks.trajectory(sampler, denoise, x, levels)[3]
        np.testing.assert_allclose(stopped, expected, atol=1e-4)
        assert np.abs(ended - stopped).max() > 1e-3
    else:
        np.testing.assert_array_equal(ended, stopped)


def test_a_share_or_models_that_cannot_be_are_refused():
    levels = Sampling(num_steps=4).plan(Schedule())[1]
    for share in (0, 1, 1.5):
        with pytest.raises(ValueError, match='share must be above 0 and below 1; got'):
            handover(Schedule(), levels, share)
    with pytest.raises(ValueError, match=r'share 0\.95 of 4 steps leaves none for the refiner'):
        handover(Schedule(), levels, 0.95)
    with pytest.raises(ValueError, match=r'share 0\.0001 of 4 steps leaves none for the base'):
        handover(Schedule(), Sampling(grid='leading', num_steps=4).plan(Schedule())[1], 0.0001)
    base, refiner = pairs.model(BASE), pairs.model(REFINER)
    other = dataclasses.replace(refiner, parts=dataclasses.replace(refiner.parts, scaling_factor=0.5))
    with pytest.raises(ValueError, match=r'share their latents: scaling_factor is 0\.2 of the base and 0\.5'):
        check(base, other)
