"""Levels of noise on a conditioning, against diffusers' schedulers."""

import numpy as np
import pytest

from ldm_jax.pipelines import augmentation
from ldm_jax.schedules import scaled_linear, squared_cosine

EMBEDDINGS = squared_cosine.Schedule()


@pytest.mark.parametrize(
    ('schedule', 'theirs'),
    [
        (EMBEDDINGS, dict(beta_schedule='squaredcos_cap_v2')),  # unCLIP's image_noising_scheduler
        (  # the x4 upscaler's low_res_scheduler
            scaled_linear.Schedule(beta_start=0.0001, beta_end=0.02),
            dict(beta_schedule='scaled_linear', beta_start=0.0001, beta_end=0.02),
        ),
    ],
)
def test_noise_is_that_of_diffusers(schedule, theirs):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    times = [0, 20, 350, 999]
    at = augmentation.levels(schedule, times, 4)
    scheduler = diffusers.DDPMScheduler(**theirs)
    ones, zeros = torch.ones(4, 1), torch.zeros(4, 1)
    for found, clean, noise in ((at.alpha, ones, zeros), (at.sigma, zeros, ones)):
        expected = scheduler.add_noise(clean, noise, torch.tensor(times))[:, 0]
        # Theirs is the root of a float32 difference from one.
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=3e-6)
    np.testing.assert_array_equal(at.t, times)
    np.testing.assert_array_equal(augmentation.levels(schedule, 20, 3).t, [20, 20, 20])


@pytest.mark.parametrize('level', [351, -1, 2.5, [0, 400]])
def test_levels_beyond_those_of_training_are_refused(level):
    with pytest.raises(ValueError, match='noise_level must be whole and from 0 to 350; got'):
        augmentation.levels(EMBEDDINGS, level, 2, 350)


def test_another_count_of_levels_is_refused():
    with pytest.raises(ValueError, match='3 noise levels for 2 images: give one for each, or one for all'):
        augmentation.levels(EMBEDDINGS, [1, 2, 3], 2)
