"""Prompts that change on the way hold at the evaluations that the web UI counts, and compile nothing new."""

import jax
import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.inference.settings import Sampling
from ldm_jax.pipelines import timing
from ldm_jax.pipelines.hires import hires
from ldm_jax.pipelines.interpolate import interpolate
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.pipelines.start import starting_noise
from ldm_jax.pipelines.text_to_image import text_to_image
from tests import tiny_models
from tests.inference.test_programs import compilations  # noqa: F401 (a fixture)
from tests.pipelines import pairs

SIZE = (16, 16)
CHANGING = 'a [red cat:(two dogs:1.3):2]'


@pytest.fixture(scope='module')
def pipeline():
    return pairs.ours(tiny_models.SETTINGS['text'])


def sampling_of(**options):
    return knobs.make(Sampling, dict(sampler='euler', num_steps=4, guidance_scale=2.0) | options)


def by_hand(pipeline, sampling, entries):
    """Latents of a run in pieces, each under one conditioning: (steps, prompt), ..."""
    _, levels = sampling.plan(pipeline.parts.schedule)
    x, done = starting_noise(pipeline, sampling, levels, [0], SIZE), 0
    for steps, prompt in entries:
        conds, guidance = prompt_conds(pipeline, sampling, [prompt], '', SIZE)
        rest = jax.tree.map(lambda a: a[done:], levels)  # noqa: B023
        x = pipeline.sample(sampling, x, rest, conds, [0], guidance=guidance, stop=steps)
        done += steps
    return x


def latents(pipeline, sampling, prompt):
    _, levels = sampling.plan(pipeline.parts.schedule)
    x = starting_noise(pipeline, sampling, levels, [0], SIZE)
    conds, guidance = prompt_conds(pipeline, sampling, [prompt], '', SIZE)
    return pipeline.sample(sampling, x, levels, conds, [0], guidance=guidance)


@pytest.mark.slow
def test_a_change_is_at_its_step(pipeline):
    # The first entry lasts one evaluation longer, as in the web UI.
    options = dict(emphasis='no_norm')  # both texts are one batch where the mean is restored
    found = latents(pipeline, sampling_of(**options), CHANGING)
    expected = by_hand(pipeline, sampling_of(**options), [(3, 'a red cat'), (1, 'a (two dogs:1.3)')])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - latents(pipeline, sampling_of(**options), 'a red cat')).max() > 1e-2


def test_samplers_of_second_order_count_their_evaluations(pipeline):
    schedule = pipeline.parts.schedule
    names = (
        'euler',
        'heun',
        'dpm2',
        'dpmpp_sde',
        'dpmpp_2s_ancestral',
        'restart',
        'dpmpp_2m',
        'lcm',
        'dpm_fast',
    )
    counts = {name: timing.evaluations(sampling_of(sampler=name), schedule) for name in names}
    doubled = {'heun', 'dpm2', 'dpmpp_sde', 'dpmpp_2s_ancestral', 'restart'}
    assert counts == {name: 2 if name in doubled else 1 for name in counts}
    (_, cond), _ = prompt_conds(pipeline, sampling_of(sampler='heun'), ['[a:b:0.5]'], '', SIZE)
    np.testing.assert_array_equal(np.asarray(cond.index)[0, :8], [0, 0, 0, 0, 0, 1, 1, 1])


def test_second_passes_and_refiners_go_on_counting(pipeline):
    sampling = sampling_of()
    course = timing.Course(sampling, steps=3)
    (_, cond), _ = prompt_conds(pipeline, sampling, ['[a:b:5]'], '', SIZE, course=course)
    np.testing.assert_array_equal(np.asarray(cond.index)[0, :3], [0, 0, 1])
    (_, later), _ = prompt_conds(pipeline, sampling, ['[a:b:2]'], '', SIZE, course=timing.Course(done=2))
    (_, whole), _ = prompt_conds(pipeline, sampling, ['[a:b:2]'], '', SIZE)
    np.testing.assert_array_equal(np.asarray(later.index)[0, :2], np.asarray(whole.index)[0, 2:4])


@pytest.mark.slow
def test_other_tasks_take_changing_and_long_prompts(pipeline):
    sampling, prompts = sampling_of(num_steps=3), ['[a|b] BREAK c', '(d:1.2) [e::2]']
    ways = interpolate(pipeline, prompts, 'x [y:1]', shares=[0, 0.5, 1], sampling=sampling)
    ends = text_to_image(
        pipeline, prompts, 'x [y:1]', seed=[0, 0], sampling=knobs.replace(sampling, prompt_padding='empty')
    )
    np.testing.assert_allclose(ways[0], ends[0], atol=2e-4)
    images = hires(pipeline, prompts, '[z]', scale=2, sampling=sampling)
    assert images.shape == (2, 32, 32, 3)


@pytest.mark.slow
def test_a_hundred_prompts_compile_nothing_after_the_first(pipeline, compilations):  # noqa: F811
    generator = np.random.default_rng(0)
    sampling = sampling_of(num_steps=2)
    text_to_image(pipeline, '[a:(b:1.1):1]', '(c:0.9)', sampling=sampling)
    before = len(compilations)
    for i in range(100):
        weight, when, other = generator.uniform(0.1, 2, 3).round(3)
        prompt = f'[a{i}:(b:{weight}):{when}]' if i % 2 else f'[x|(y {i}:{weight})]'
        sampling = sampling_of(num_steps=2, emphasis=('original', 'no_norm', 'ignore')[i % 3])
        prompt_conds(pipeline, sampling, [prompt], f'(c:{other})', SIZE)
        if i % 10 == 0:
            text_to_image(pipeline, prompt, f'(c:{other})', sampling=sampling)
    assert len(compilations) == before
