import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings

from ldm_jax.images import fit, to_float
from ldm_jax.pipelines import masks

RNG = np.random.default_rng(0)


def box(size, top, left, bottom, right):
    mask = np.zeros((*size, 1), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


class TestBlur:
    @pytest.mark.parametrize('radius', [0.3, 1, 2.5, 4, 20])
    def test_is_scipys_gaussian(self, radius):
        mask = RNG.random((17, 31, 1)).astype(np.float32)
        reach = int(2.5 * radius + 0.5)
        expected = scipy.ndimage.gaussian_filter(
            mask[..., 0].astype(np.float64), radius, radius=reach, mode='mirror'
        )
        found = masks.blur(mask, radius)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)

    def test_spreads_evenly_and_keeps_the_total(self):
        found = masks.blur(box((41, 41), 20, 20, 21, 21), 4)
        assert abs(found.sum() - 1) < 1e-5
        np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-7)
        assert (found[..., 0] > 0).sum() == 21**2  # int(2.5 * 4 + 0.5) = 10 to each side

    def test_no_radius_is_no_blur(self):
        mask = box((8, 8), 2, 2, 4, 4)
        np.testing.assert_array_equal(masks.blur(mask, 0), mask)
        with pytest.raises(ValueError, match='Blur radius -1 is negative'):
            masks.blur(mask, -1)


class TestCrop:
    @pytest.mark.parametrize(
        ('mask', 'padding', 'aspect', 'expected'),
        [
            (box((512, 512), 0, 256, 256, 512), 0, 1, (0, 256, 256, 512)),
            (box((512, 512), 200, 100, 232, 228), 0, 1, (152, 100, 280, 228)),  # 128 x 32 becomes 128 x 128
            (box((512, 512), 200, 100, 232, 228), 8, 1, (144, 92, 288, 236)),
            (box((512, 512), 0, 100, 32, 228), 0, 1, (0, 100, 128, 228)),  # at the top it grows downwards
            (box((512, 512), 480, 100, 512, 228), 0, 1, (384, 100, 512, 228)),
            (
                box((512, 512), 200, 100, 232, 228),
                0,
                8,
                (200, 36, 232, 292),
            ),  # already wide: made wider still
            (box((100, 512), 40, 0, 60, 512), 0, 1, (0, 0, 100, 512)),  # no further than the image
            (box((64, 64), 10, 10, 11, 11), 32, 1, (0, 0, 43, 43)),
        ],
    )
    def test_worked_examples(self, mask, padding, aspect, expected):
        assert masks.masked_crop(mask, padding, aspect) == expected

    @settings(deadline=None, max_examples=100)
    @given(st.data(), st.integers(0, 20), st.sampled_from([0.25, 0.5, 2 / 3, 1, 1.5, 3]))
    def test_holds_the_mask_in_the_wanted_shape(self, data, padding, aspect):
        size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
        top, left = (data.draw(st.integers(0, side - 1)) for side in size)
        bottom, right = (
            data.draw(st.integers(a + 1, side)) for a, side in zip((top, left), size, strict=True)
        )
        region = masks.masked_crop(box(size, top, left, bottom, right), padding, aspect)
        assert 0 <= region.top <= max(top - padding, 0)
        assert min(bottom + padding, size[0]) <= region.bottom <= size[0]
        assert 0 <= region.left <= max(left - padding, 0)
        assert min(right + padding, size[1]) <= region.right <= size[1]
        height, width = region.size
        if height < size[0] and width < size[1]:
            assert height == int(width / aspect) or width == int(height * aspect)

    def test_the_faint_end_of_a_blur_does_not_count(self):
        mask = box((32, 32), 10, 10, 20, 20)
        mask[0, 0] = 0.4 / 255
        assert masks.masked_crop(mask, 0, 1) == (10, 10, 20, 20)

    def test_an_empty_mask(self):
        with pytest.raises(ValueError, match='The mask is empty'):
            masks.masked_crop(np.zeros((8, 8, 1), np.float32), 4, 1)


class TestPasteBack:
    original = RNG.uniform(-1, 1, (32, 48, 3)).astype(np.float32)

    def test_outside_the_mask_every_bit_stays(self):
        mask = box((32, 48), 8, 10, 20, 30)
        region = masks.masked_crop(mask, 4, 1)
        generated = np.full((64, 64, 3), 0.25, np.float32)
        found = masks.paste_back(self.original, generated, mask, region)
        np.testing.assert_array_equal(found, np.where(mask, np.float32(0.25), self.original))

    def test_a_blurred_edge_is_a_mixture(self):
        mask = np.full((32, 48, 1), 0.25, np.float32)
        generated = -self.original
        whole = masks.Region(0, 0, 32, 48)
        found = masks.paste_back(self.original, generated, mask, whole)
        np.testing.assert_allclose(found, 0.5 * self.original, atol=1e-6)
        found = masks.paste_back(self.original, generated, mask)  # the whole image: the mask counts double
        np.testing.assert_allclose(found, 0 * self.original, atol=1e-6)

    def test_the_original_is_not_written_to(self):
        before = self.original.copy()
        masks.paste_back(self.original, -self.original, np.ones((32, 48, 1), np.float32))
        np.testing.assert_array_equal(self.original, before)

    def test_what_was_cut_out_and_filled_up_lands_where_it_was(self):
        """A region that the image's edge keeps from the wanted shape is filled up, and cropped again."""
        ramp = np.linspace(-1, 1, 48, dtype=np.float32)[None, :, None].repeat(32, 0).repeat(3, -1)
        region = masks.Region(0, 4, 32, 44)
        worked_at = fit(region.of(ramp), (128, 128), 'fill')
        found = masks.paste_back(ramp, worked_at, box((32, 48), 0, 8, 32, 40), region)
        np.testing.assert_allclose(found, ramp, atol=0.02)

    def test_another_size(self):
        with pytest.raises(ValueError, match=r'The mask is \[48, 32, 1\] and the image \[32, 48, 3\]'):
            masks.paste_back(self.original, self.original, np.ones((48, 32, 1), np.float32))


class TestContents:
    image = to_float(RNG.integers(0, 256, (24, 40, 3), np.uint8))
    mask = box((24, 40), 6, 10, 18, 30)

    def test_fill_takes_the_only_colour_there_is(self):
        image = to_float(np.full((24, 40, 3), [200, 30, 90], np.uint8))
        spoiled = np.where(self.mask, np.float32(-1), image)
        found = masks.masked_image('fill', spoiled, self.mask)
        assert abs(found - image).max() < 5 / 127.5  # blurs of eight bits

    def test_fill_takes_the_nearer_colour_and_leaves_the_rest(self):
        image = np.full((40, 80, 3), -1, np.float32)
        image[:, :40, 0] = image[:, 40:, 2] = 1  # red to the left, blue to the right
        mask = box((40, 80), 0, 20, 40, 60)
        found = masks.fill(image, mask)
        np.testing.assert_array_equal(found[:, :20], image[:, :20])
        np.testing.assert_array_equal(found[:, 60:], image[:, 60:])
        red, blue = found[20, 20:60, 0], found[20, 20:60, 2]
        assert (red[:15] > blue[:15]).all()
        assert (red[-15:] < blue[-15:]).all()
        assert (np.diff(red) < 0.02).all()

    def test_fill_with_nothing_known_is_black(self):
        np.testing.assert_array_equal(masks.fill(self.image, np.ones((24, 40, 1), np.float32)), -1)

    @pytest.mark.parametrize(
        'content', ['original', 'latent_noise', 'latent_nothing', 'latent noise', 'latent nothing']
    )
    def test_the_other_contents_leave_the_image(self, content):
        np.testing.assert_array_equal(masks.masked_image(content, self.image, self.mask), self.image)

    @pytest.mark.parametrize('array', [np.asarray, jnp.asarray])
    def test_latents(self, array):
        latents, noise = (array(RNG.normal(size=(2, 4, 6, 4)).astype(np.float32)) for _ in range(2))
        mask = array(box((4, 6), 1, 2, 3, 5))
        for content, expected in {
            'fill': latents,
            'original': latents,
            'latent_noise': np.where(mask, noise, latents),
            'latent_nothing': np.where(mask, 0, latents),
        }.items():
            np.testing.assert_array_equal(masks.masked_latents(content, latents, mask, noise), expected)
            web_ui = content.replace('_', ' ')  # the web UI's names mean the same
            np.testing.assert_array_equal(masks.masked_latents(web_ui, latents, mask, noise), expected)

    def test_latent_mask(self):
        found = masks.latent_mask(box((64, 48), 16, 8, 40, 32), (8, 6))
        np.testing.assert_array_equal(found, box((8, 6), 2, 1, 5, 4))
        faint = masks.latent_mask(0.4 * box((64, 48), 16, 8, 40, 32), (8, 6))
        np.testing.assert_array_equal(faint, 0)

    def test_errors(self):
        message = r"No masked content 'noise'; have \['fill', 'original', 'latent_noise', 'latent_nothing', "
        with pytest.raises(ValueError, match=message):
            masks.masked_image('noise', self.image, self.mask)
        with pytest.raises(ValueError, match=message):
            masks.masked_latents('noise', self.image, self.mask, self.image)
        with pytest.raises(ValueError, match=r'The mask is \[6, 10, 1\]'):
            masks.masked_image('fill', self.image, self.mask[6:12, 10:20])
