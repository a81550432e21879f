import numpy as np
import pytest

from ldm_jax.inference.settings import Sampling
from ldm_jax.pipelines.inpaint import inpaint
from ldm_jax.pipelines.outpaint import extended, outpaint
from tests.pipelines import pairs

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 12, 20, 3)).astype(np.float32)


def test_canvas_and_mask():
    canvas, mask = extended(IMAGES, (4, 0), (8, 4), blur=1)
    assert canvas.shape == (2, 16, 32, 3)
    np.testing.assert_array_equal(canvas[:, 4:, 8:28], IMAGES)
    np.testing.assert_array_equal(canvas[:, 5:, :8], np.repeat(IMAGES[:, 1:, :1], 8, 2))
    # Two pixels of the image are painted over at the sides that grow, none at the one that does not.
    np.testing.assert_array_equal(np.flatnonzero(mask[-1, :, 0] == 0), np.arange(10, 26))
    np.testing.assert_array_equal(np.flatnonzero(mask[:, 16, 0] == 0), np.arange(6, 16))


@pytest.mark.slow
def test_the_image_stays_and_its_surroundings_are_inpainted():
    pipeline = pairs.model('StableDiffusionPipeline')
    settings = dict(blur=1, strength=0.75, seed=3, sampling=Sampling('ddim', 'leading', num_steps=4))
    made = outpaint(pipeline, ['a cat', 'a dog'], IMAGES, top=4, left=8, right=4, **settings)
    expected = inpaint(
        pipeline, ['a cat', 'a dog'], *extended(IMAGES, (4, 0), (8, 4), 1), content='fill', **settings
    )
    np.testing.assert_array_equal(made, expected)
    reach = 5  # 2 that are masked and int(2.5 + 0.5) of the blur
    np.testing.assert_array_equal(
        made[:, 4 + reach :, 8 + reach : 28 - reach], IMAGES[:, reach:, reach:-reach]
    )
    border = made[:, :4], made[:, 4:, :8], made[:, 4:, 28:]
    assert all((part.std(axis=(1, 2)) > 0).all() for part in border)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(), 'to at least one side'),
        (dict(left=-4, right=8), r'\[0, 0, -4, 8\].*none negative'),
        (dict(top=2), r'14 x 20.*The nearest that is'),
        (dict(top=4, bottom=4, blur=4), 'overlaps the image by 8 pixels, which is all of its 12'),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, message):
    pipeline = pairs.model('StableDiffusionPipeline')
    with pytest.raises(ValueError, match=message):
        outpaint(pipeline, ['a', 'b'], IMAGES, **dict(dict(blur=0), **options))
