"""What single files are: every public one, by its keys and shapes."""

import json

import pytest

from ldm_jax import build
from ldm_jax.checkpoints.identify import identify
from tests.checkpoints import single_files
from tests.checkpoints.single_files import listings, reading

SAID = {'sd2_base': 'eps', 'sd2_v': 'v', 'sd2_sgm': 'eps'}  # what keys do not tell
YAML = {'ldm_semantic_synthesis512': {'model': {'params': {'image_size': 128}}}}
NAMES = sorted(listings())


def identified(name, **more):
    more = dict(read=reading(name), prediction=SAID.get(name), sidecar=YAML.get(name)) | more
    return identify(listings()[name], **more)


def without_defaults(config):
    """A config as identify gives it: plain, and without what is not in files."""
    return {
        key: value for key, value in config.items() if key not in ('models', 'loss') and value is not None
    }


@pytest.mark.parametrize('name', NAMES)
def test_public_files_are_their_configs(name):
    found, config = identified(name), single_files.config(name)
    assert build.parts(found) == build.parts(config)
    assert json.loads(json.dumps(found)) == found
    scale = {} if config.get('latent_scale', 1) else {'latent_scale': single_files.SCALE}
    assert {key: value for key, value in found.items() if key != 'models'} == without_defaults(config) | scale
