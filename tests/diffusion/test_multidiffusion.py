"""Windows of a large image: where they are, what they weigh, and that a pixel's function does not notice them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import guidance, parameterization
from ldm_jax.diffusion.denoiser import denoiser, on_schedule
from ldm_jax.diffusion.multidiffusion import PROFILES, Windows, windowed
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond
from tests import oracles
from tests.tiers import fast

X = jax.random.normal(jax.random.key(0), (2, 22, 13, 3))
LEVEL = Schedule().level(jnp.array(500.0))
SIZES = [
    Windows(8, 4),
    Windows(8, 3, 'ramp', at_once=4),  # 12 windows: none left over
    Windows(8, 1, 'gaussian', at_once=5),
    Windows(8, 0),
    Windows(13, 6, 'ramp', at_once=3),
    Windows(8, 5, 'ramp', 'x', at_once=2),
    Windows(8, 5, 'flat', 'xy'),
    Windows(64, 32),  # one
]


def pixelwise(x, t, cond):
    """A network that looks at each pixel alone."""
    t = jnp.reshape(jnp.broadcast_to(t, x.shape[:1]), (-1, 1, 1, 1))
    return jnp.tanh(x) * cond.concat + jnp.log1p(t) * cond.vector[:, None, None]


def pointwise_cond(batch):
    normal = np.random.default_rng(1).standard_normal
    return Cond(concat=normal((batch, *X.shape[1:])), vector=normal((batch, X.shape[-1])))


@pytest.mark.parametrize('windows', SIZES, ids=str)
def test_weights_of_all_windows_add_up_to_one_everywhere(windows):
    for length, axis in ((22, 'y'), (13, 'x'), (8, 'x')):
        for scale in (1, 2):
            out = scale * min(windows.size, length)
            weights = windows.weights(length, axis, out)
            total = np.zeros(length * scale)
            for start, row in zip(windows.starts(length, axis), weights, strict=True):
                np.add.at(total, np.arange(scale * start, scale * start + out) % (scale * length), row)
            np.testing.assert_allclose(total, 1, rtol=1e-12)
            assert (weights > 0).all()


@pytest.mark.parametrize('windows', fast(2, SIZES), ids=str)
def test_what_looks_at_each_pixel_alone_does_not_notice_windows(windows):
    with oracles.float64():
        cond, x = pointwise_cond(2), jnp.asarray(np.float64(X))
        for t in (jnp.array(7.0), jnp.array([3.0, 900.0])):
            out = windowed(pixelwise, windows)(x, t, cond)
            np.testing.assert_allclose(out, pixelwise(x, t, cond), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('height', 'width'), [(512, 2048), (1024, 1024), (256, 832), (512, 512)])
@pytest.mark.parametrize('circular', [False, True])
def test_windows_are_the_views_of_diffusers(height, width, circular):
    pipelines = pytest.importorskip('diffusers.pipelines.deprecated.stable_diffusion_panorama')
    views = pipelines.StableDiffusionPanoramaPipeline.get_views
    theirs = views(None, height, width, circular_padding=circular)
    theirs = [(y, min(end, height // 8), *x) for y, end, *x in theirs]  # as slicing cuts it
    windows = Windows(64, 56, wrap='x' if circular else '')
    ours = [
        (y, min(y + 64, height // 8), x, x + 64)
        for y in windows.starts(height // 8, 'y')
        for x in windows.starts(width // 8, 'x')
    ]
    assert ours == theirs


def test_a_network_that_mixes_pixels_is_averaged_with_equal_weights():
    windows = Windows(8, 5, at_once=3)

    def mean(x, t, cond):
        return jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)

    total, count = np.zeros(X.shape), np.zeros((1, *X.shape[1:3], 1))
    for y in (0, 3, 6, 9, 12, 14):
        for x in (0, 3, 5):
            part = np.s_[:, y : y + 8, x : x + 8]
            total[part] += np.asarray(X)[part].mean((1, 2), keepdims=True)
            count[part] += 1
    np.testing.assert_allclose(windowed(mean, windows)(X, jnp.array(0.0), Cond()), total / count, atol=1e-6)


def test_windows_that_go_round_move_with_the_image():
    windows = Windows(8, 4, 'ramp', 'xy')
    x = X[:, :20, :12]

    def local(x, t, cond):
        return jnp.cumsum(x, 2) * x.mean((1, 2), keepdims=True)

    out = windowed(local, windows)(x, jnp.array(0.0), Cond())
    moved = windowed(local, windows)(jnp.roll(x, (4, 8), (1, 2)), jnp.array(0.0), Cond())
    np.testing.assert_allclose(moved, jnp.roll(out, (4, 8), (1, 2)), atol=1e-5)


@pytest.mark.slow
def test_guidance_stands_above_windows_and_tells_both_predictions():
    conds = pointwise_cond(4)  # uncond and cond of two images

    def guided(network):
        predict = denoiser(network, parameterization.v, conds)
        rule = guidance.rescaled(guidance.linear(5.0), 0.7)  # which measures whole images
        return on_schedule(guidance.guided(guidance.batched(predict), rule), Schedule())

    both = guided(windowed(pixelwise, Windows(8, 3, 'gaussian', at_once=2))).both(X, LEVEL)
    for ours, plain in zip(both, guided(pixelwise).both(X, LEVEL), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_windows_are_evaluated_in_batches_of_one_shape():
    traces, calls = [], []

    def counted(x, t, cond):
        traces.append(x.shape)
        jax.debug.callback(lambda: calls.append(1))
        return x

    jax.jit(windowed(counted, Windows(8, 3, at_once=5)))(X, jnp.array(0.0), Cond()).block_until_ready()
    jax.effects_barrier()
    assert set(traces) == {(10, 8, 8, 3)}
    assert len(calls) == 2  # eight windows in fives


def test_a_result_whose_windows_would_begin_between_pixels_is_an_error():
    def halved(parts):
        return parts[:, :, ::2, ::2]

    assert Windows(8, 4).average(halved, X[:, :, :12]).shape == (2, 11, 6, 3)
    with pytest.raises(ValueError, match=r'8 x 8 that become 4 x 4 begin at rows \[0, 5, 10, 14\]'):
        Windows(8, 3).average(halved, X)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(size=8, overlap=8), 'got size 8, overlap 8, at_once 1'),
        (dict(size=8, overlap=-1), 'got size 8, overlap -1'),
        (dict(at_once=0), 'at_once 0'),
        (dict(profile='ramps'), rf"profile of windows 'ramps'; have {list(PROFILES)}".replace('[', r'\[')),
        (dict(wrap='both'), "axes to wrap 'both'"),
    ],
)
def test_settings_that_cannot_be_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        Windows(**fields)
