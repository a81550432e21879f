"""Interpolation against torch's, with the settings that the web UI has for latents."""

import numpy as np
import pytest

from ldm_jax.pipelines import resize_latents

TORCH = {
    'nearest': dict(mode='nearest'),
    'nearest_exact': dict(mode='nearest-exact'),
    'bilinear': dict(mode='bilinear'),
    'bilinear_antialiased': dict(mode='bilinear', antialias=True),
    'bicubic': dict(mode='bicubic'),
    'bicubic_antialiased': dict(mode='bicubic', antialias=True),
}


@pytest.mark.parametrize('size', [(12, 14), (9, 10), (4, 5), (6, 7)], ids=str)
@pytest.mark.parametrize('method', resize_latents.METHODS)
def test_it_is_that_of_torch(method, size):
    torch = pytest.importorskip('torch')
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 4)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), size=size, **TORCH[method]
    )
    ours = resize_latents.interpolated(x, size, method)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=2e-6)


def test_another_method_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"No interpolation 'bicubc'; .*Did you mean 'bicubic'\?"):
        resize_latents.interpolated(np.zeros((2, 2, 1)), (4, 4), 'bicubc')
