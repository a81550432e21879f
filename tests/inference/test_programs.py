"""What one compiled program serves: any numbers, any device count, any company in the batch."""

import jax
import numpy as np
import pytest

from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.inference.watching import watched
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

SETTINGS = folders.TINY['StableDiffusionPipeline']
SAMPLING = Sampling('euler_ancestral', num_steps=3, guidance=Guidance(3.0))
WORDS = ['red', 'green', 'blue', 'cat', 'dog', 'house', 'tree', 'river', 'mountain', 'cloud']


@pytest.fixture(scope='module')
def params():
    return pairs.random_params(SETTINGS)


@pytest.fixture(scope='module')
def compilations():
    """A list that grows by one with each program that XLA compiles."""
    seen = []

    def heard(event, duration, **kwargs):
        if event == '/jax/core/compile/backend_compile_duration':
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(heard)
    return seen


@pytest.mark.slow
def test_two_hundred_varied_calls_compile_nothing_after_the_first_of_a_sampler(params, compilations):
    pipeline = pairs.ours(SETTINGS, params)
    samplers = [
        lambda u: dict(name='ddim', eta=u),
        lambda u: 'dpmpp_2m',
        lambda u: dict(name='euler', s_churn=u, s_noise=1 + u / 100),
        lambda u: dict(name='restart', s_noise=1 + u / 100),
    ]
    generator = np.random.default_rng(0)
    grids = ['trailing', 'leading', 'karras', 'sgm_uniform', 'beta', 'exponential', 'simple', 'linspace']
    for grid in grids:  # which calculate on the host by a schedule's functions, compiled once in a process
        Sampling(grid=grid).plan(pipeline.parts.schedule)
    first = set()
    for call in range(200):
        which = call % len(samplers)
        sampling = Sampling(
            samplers[which](float(generator.uniform())),
            grids[call // 4 % len(grids)],
            num_steps=int(generator.integers(20, 25) if which == 3 else generator.integers(2, 12)),
            guidance=Guidance([1, 7.5, float(generator.uniform(0, 12)), 0][call % 4]),
        )
        prompts = [' '.join(generator.permutation(WORDS)[:n]) for n in generator.integers(0, 10, 2)]
        before = len(compilations)
        images = text_to_image(
            pipeline, prompts, prompts[0][::-1], seed=int(generator.integers(2**40)), sampling=sampling
        )
        assert np.isfinite(images).all()
        if which in first:
            assert len(compilations) == before, (call, sampling)
        first.add(which)
    assert compilations


@pytest.mark.slow
def test_an_image_is_the_same_to_the_bit_where_as_many_are_made_at_a_time_on_a_device(params):
    """Whatever is beside it and wherever it stands; test_devices.py has how many devices there are."""
    prompts, seeds = ['a red cat', 'a dog', '', 'three trees'], [5, 6, 7, 8]

    def make(which, devices, batch_size):
        pipeline = pairs.ours(SETTINGS, params, devices=devices, batch_size=batch_size)
        return text_to_image(
            pipeline, [prompts[i] for i in which], seed=[seeds[i] for i in which], sampling=SAMPLING
        )

    everyone = [0, 1, 2, 3]
    one = make(everyone, 1, 1)
    assert np.abs(one[0] - one[1]).max() > 0.01
    np.testing.assert_array_equal(make([2], 1, None)[0], one[2])
    np.testing.assert_array_equal(make([3, 1], 1, 1), one[[3, 1]])
    two = make(everyone, 1, 2)
    np.testing.assert_array_equal(make([3, 0], 1, 2), two[[3, 0]])
    spread = make(everyone, 4, 4)
    np.testing.assert_array_equal(make([1, 2], 4, 4), spread[[1, 2]])  # two of four devices have a copy

    # Another number at a time is another program, whose sums are in another order.
    np.testing.assert_allclose(two, one, atol=1e-5)
    np.testing.assert_allclose(spread, one, atol=1e-5)


@pytest.mark.slow
def test_knobs_may_differ_from_image_to_image(params):
    pipeline = pairs.ours(SETTINGS, params)
    prompts, etas, scales = ['a red cat', 'a dog'], [0.2, 1.0], [2.0, 6.0]
    sampling = Sampling(dict(name='ddim', eta=etas), num_steps=3, guidance=Guidance(scales))
    together = text_to_image(pipeline, prompts, seed=5, sampling=sampling)
    for i in range(2):
        one = Sampling(dict(name='ddim', eta=etas[i]), num_steps=3, guidance=Guidance(scales[i]))
        alone = text_to_image(pipeline, [prompts[i]] * 2, seed=5 + i, sampling=one)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5)
    with pytest.raises(ValueError, match='2 numbers for 3 images'):
        text_to_image(pipeline, ['a'] * 3, sampling=sampling)


@pytest.mark.slow
def test_a_listener_sees_each_step_and_where_it_is_heading_and_changes_nothing(params):
    seen = []
    pipeline = pairs.ours(SETTINGS, params, batch_size=1)
    sampling = Sampling('ddim', num_steps=3, guidance=Guidance(3.0))
    with watched(seen.append):
        images = text_to_image(pipeline, ['a red cat', 'a dog'], seed=5, sampling=sampling)
    assert [(step.done, step.total) for step in seen] == [(i, 6) for i in range(1, 7)]
    last = seen[-1].decode(seen[-1].x0())
    np.testing.assert_allclose(last[0], images[1], atol=1e-5)
    assert np.isfinite(seen[0].x0()).all()
    plain = text_to_image(pairs.ours(SETTINGS, params), ['a red cat', 'a dog'], seed=5, sampling=sampling)
    assert len(seen) == 6  # a listener belongs to its call
    np.testing.assert_allclose(images, plain, atol=1e-5)
