"""The shared public weights, when they are there, against the libraries that wrote them."""

import numpy as np
import pytest

from ldm_jax.checkpoints.files import reader
from tests.shared_data import shared

FILES = {
    'ddpm_mnist_starter.pth': 29,
    'lora_cloneofsimo_analog_rank4.safetensors': 384,
    'lora_cloneofsimo_rank1_with_tokens.safetensors': 386,
    'lora_diffusers_attnproc_rank4.bin': 256,
    'lora_diffusers_attnproc_rank4.safetensors': 256,
    'taef2_decoder.pth': 79,
    'taef2_encoder.pth': 79,
    'textual_inversion_birb_style.bin': 1,
}


def weights(name):
    return shared(f'weights/{name}')


@pytest.mark.parametrize('name', FILES)
def test_the_published_file_is_read_as_its_library_reads_it(name):
    path = weights(name)
    torch = pytest.importorskip('torch')
    if path.suffix == '.safetensors':
        expected = pytest.importorskip('safetensors.torch').load_file(path)
    else:
        expected = torch.load(path, map_location='cpu', weights_only=True)
    with reader.open_file(path) as file:
        assert file.keys() == expected.keys()
        assert len(file) == FILES[name]
        assert file.refused == ()
        for key, tensor in expected.items():
            np.testing.assert_array_equal(file[key], tensor.detach(), strict=True)


def test_the_published_pair():
    encoder = weights('taef2_encoder.pth')
    assert reader.sibling(encoder) == weights('taef2_decoder.pth')
    with reader.open_pair(encoder, reader.sibling(encoder)) as file:
        assert len(file) == 158
        digest = '10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6'  # of the folder's README
        assert file.sha256()['taef2_encoder.pth'] == digest
