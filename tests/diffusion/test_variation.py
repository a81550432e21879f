"""Variation seeds against the web UI's rule, restated in torch on its own layout (C, h, w)."""

import numpy as np
import pytest
import torch

from ldm_jax.diffusion import noise_sources
from ldm_jax.diffusion.variation import varied


def web_ui(strength, noise, other):
    """One image's rule: unit columns along h, their angle, weights of sines; a straight line if nearly parallel."""
    cosine = torch.nn.functional.cosine_similarity(noise, other, dim=1)
    if cosine.mean() > 0.9995:
        return strength * noise + (1 - strength) * other
    angle = torch.arccos(cosine)[:, None]
    return (torch.sin((1 - strength) * angle) * noise + torch.sin(strength * angle) * other) / torch.sin(
        angle
    )


@pytest.mark.parametrize('strength', [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize('seeds', [[9, 10], [1, 9]])  # and a seed towards itself, which is the straight line
def test_the_rule_of_the_web_ui(strength, seeds):
    shape = (6, 4, 3)
    noise = noise_sources.noise('torch_cpu', [1, 2], shape)
    other = noise_sources.noise('torch_cpu', seeds, shape)
    found = varied(noise, other, strength)
    assert found.dtype == np.float32
    for i in range(2):
        if seeds[i] == [1, 2][i]:
            assert np.abs(found[i] - noise[i]).max() < 1e-6
            continue
        drawn = [
            torch.randn((3, 6, 4), generator=torch.Generator().manual_seed(s)) for s in ([1, 2][i], seeds[i])
        ]
        expected = web_ui(strength, *drawn).permute(1, 2, 0)
        np.testing.assert_allclose(found[i], expected, atol=2e-6)


def test_the_ends_are_the_two_noises():
    a, b = noise_sources.noise('jax', [1], (4, 4, 4)), noise_sources.noise('jax', [2], (4, 4, 4))
    np.testing.assert_allclose(varied(a, b, 0.0), a, atol=1e-6)
    np.testing.assert_allclose(varied(a, b, 1.0), b, atol=1e-6)


def test_errors():
    a = np.zeros((1, 4, 4, 4), np.float32)
    with pytest.raises(ValueError, match='variation_strength must be from 0 to 1; got 1.5'):
        varied(a, a, 1.5)
    with pytest.raises(ValueError, match='Noises of one shape'):
        varied(a, a[:, :2], 0.5)
