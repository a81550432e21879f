"""Adapters there and back in each form, to the bit, with the hashes of the reference."""

import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch

from ldm_jax.adapters import files, write
from tests.adapters import tiny
from tests.adapters.test_diffusers import chosen, kohya
from tests.adapters.test_diffusers import write as write_file


@pytest.fixture
def adapter(tmp_path):
    write_file(tmp_path / 'a.safetensors', *kohya('sd1', chosen('sd1'), 1.5))
    return files.read(tmp_path / 'a.safetensors', tiny.models('sd1'))


@pytest.mark.parametrize('form', write.FORMS)
def test_each_form_comes_back_to_the_bit(adapter, tmp_path, form):
    write.write(tmp_path / 'b.safetensors', adapter, form, context=768)
    again = files.read(tmp_path / 'b.safetensors', tiny.models('sd1'))
    write.write(tmp_path / 'c.safetensors', again, 'kohya', context=768)
    back = files.read(tmp_path / 'c.safetensors', tiny.models('sd1'))
    assert back.changes.keys() == adapter.changes.keys()
    for layer, change in adapter.changes.items():
        for name, array in change.tensors.items():
            assert np.array_equal(np.reshape(back.changes[layer].tensors[name], array.shape), array), (
                layer,
                name,
            )


def test_files_are_those_of_the_reference_library_and_hashes_those_of_kohyas_scripts(adapter, tmp_path):
    path = tmp_path / 'b.safetensors'
    write.write(path, adapter, 'kohya', context=768)
    with safetensors.safe_open(path, 'pt') as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    own = {key: value for key, value in metadata.items() if key.startswith('ss_')}
    # library/train_util.py: precalculate_safetensors_hashes
    whole = safetensors.torch.save({key: tensor for key, tensor in tensors.items()}, own)
    n = int.from_bytes(whole[:8], 'little')
    assert metadata['sshs_model_hash'] == hashlib.sha256(whole[n + 8 :]).hexdigest()
    assert metadata['sshs_legacy_hash'] == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    assert metadata['ss_base_model_version'] == 'sd_v1'
    assert metadata['modelspec.architecture'] == 'stable-diffusion-v1/lora'
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_a_half_is_written_as_a_half(adapter, tmp_path):
    for dtype in ('float16', 'bfloat16'):
        write.write(tmp_path / 'b.safetensors', adapter, dtype=dtype)
        loaded = safetensors.torch.load_file(tmp_path / 'b.safetensors')
        kinds = {str(t.dtype) for key, t in loaded.items() if not key.endswith('alpha')}
        assert kinds == {f'torch.{dtype}'}
