"""Small images by BSRGAN's degradations, against those of the original code for the same draws."""

import dataclasses
import itertools
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from ldm_jax import build
from ldm_jax.data import bsrgan, degradations, pipeline

# CompVis/latent-diffusion a506df5, ldm/modules/image_degradation/{bsrgan,bsrgan_light}.py, factor 4: image n is made by
# default_rng(n), whose methods stand in for those of `random` and `numpy.random` there.
ORIGINALS = np.load(pathlib.Path(__file__).parent / 'fixtures' / 'bsrgan.npz')


@dataclasses.dataclass(frozen=True)
class Squares:
    """The originals' image at different brightness."""

    count: int = 6

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {'image': ORIGINALS['image'] // (i + 1), 'text': f'{i}'}


@pytest.mark.parametrize('name', sorted(bsrgan.SETTINGS))
def test_small_images_are_the_originals(name):
    for seed, wanted in enumerate(ORIGINALS[name]):
        small = bsrgan.degraded(ORIGINALS['image'], 4, bsrgan.settings(name), np.random.default_rng(seed))
        # Releases of OpenCV round differently, and JPEG makes steps of that.
        assert np.abs(small.astype(int) - wanted).mean() < 0.5, seed


def test_halving_is_matlabs_bicubic():
    image = ORIGINALS['image'] / np.float32(255)
    ours = degradations.halved(image)
    pillow = np.stack(  # Keys' cubic with a = -0.5 too, but without the mirrored edges
        [
            np.asarray(Image.fromarray(image[..., c]).resize((32, 32), Image.Resampling.BICUBIC))
            for c in range(3)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(ours[2:-2, 2:-2], pillow.clip(0, 1)[2:-2, 2:-2], atol=1e-6)
    assert degradations.halved(image[:5, :7]).shape == (3, 4, 3)


def test_kernels_are_gaussians_of_their_widths():
    round_one = degradations.gaussian(25, 2.0)
    turned = degradations.oblique_gaussian(25, 0.7, 4.0, 4.0)
    np.testing.assert_allclose(round_one, turned, atol=1e-9)
    kernel, place = degradations.oblique_gaussian(41, np.pi / 2, 9.0, 1.0), np.arange(41) - 20
    variances = [(kernel.sum(axis=axis) * place**2).sum() for axis in (1, 0)]  # along y, along x
    np.testing.assert_allclose(variances, [9.0, 1.0], rtol=1e-3)
    np.testing.assert_allclose(degradations.gaussian(5, 0.0), np.outer(*[[0, 0, 1, 0, 0]] * 2))


def test_draws_are_those_of_the_index_or_of_seed_epoch_and_example():
    source = build.build('data', dict(name='degraded', source=Squares(), degradation='bsrgan'))
    assert source[2]['small'].shape == (16, 16, 3)
    assert source[2]['small'].dtype == np.uint8
    assert source[2]['text'] == source.caption(2) == '2'
    np.testing.assert_array_equal(source[2]['small'], source[2]['small'])

    def smalls(start):
        batches = pipeline.batches(source, batch_size=6, seed=0, start=start)
        found = [batch['small'] for batch in itertools.islice(batches, 2)]
        batches.close()
        return np.stack(found)

    first = smalls(0)
    assert len({small.tobytes() for small in first.reshape(12, -1)}) == 12
    np.testing.assert_array_equal(smalls(1)[0], first[1])


def test_light_keeps_more():
    image = ORIGINALS['image']
    plain = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC), int)
    error = {name: np.abs(ORIGINALS[name] - plain).mean() for name in bsrgan.SETTINGS}
    ours = {
        name: np.mean(
            [
                np.abs(bsrgan.degraded(image, 4, settings, np.random.default_rng(100 + i)) - plain).mean()
                for i in range(20)
            ]
        )
        for name, settings in bsrgan.SETTINGS.items()
    }
    assert error['bsrgan_light'] < error['bsrgan']
    assert ours['bsrgan_light'] < ours['bsrgan']


def test_bad_input_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match="No degradation 'bsrgam'.*Did you mean 'bsrgan'"):
        build.build('data', dict(name='degraded', source=Squares(), degradation='bsrgam'))
    with pytest.raises(ValueError, match='at least 2; got 1'):
        build.build('data', dict(name='degraded', source=Squares(), factor=1))
    with pytest.raises(ValueError, match='64 x 64 is not 5 times another'):
        build.build('data', dict(name='degraded', source=Squares(), factor=5))[0]
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='pip install opencv-python-headless'):
        build.build('data', dict(name='degraded', source=Squares()))
