"""An image is the same to the bit on any number of devices, as XLA compiles where it is not told to hurry."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import jax, numpy as np
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.text_to_image import text_to_image
from tests.checkpoints import folders
from tests.pipelines import pairs

settings = folders.TINY['StableDiffusionPipeline']
params = pairs.random_params(settings)
sampling = Sampling('euler_ancestral', num_steps=2, guidance=Guidance(3.0))
found = {}
for devices in (1, 8):
    pipeline = pairs.ours(settings, params, devices=devices, batch_size=devices)
    found[devices] = text_to_image(pipeline, ['a red cat', 'a dog', ''], seed=[5, 6, 7], sampling=sampling)
assert np.abs(found[1][0] - found[1][1]).max() > 0.01
np.testing.assert_array_equal(found[1], found[8])
"""


@pytest.mark.slow
def test_one_image_for_each_device_is_that_of_one_device():
    # The flags of conftest.py leave out optimizations, and one device's program gets others then than eight's.
    flags = '--xla_force_host_platform_device_count=8'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
