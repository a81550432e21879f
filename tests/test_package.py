"""The package's own names: short, listed, and imported when they are used."""

import importlib

import numpy as np
import pytest

import ldm_jax
from ldm_jax.requests.tasks import TASKS
from tests import tiny_models


def test_every_name_is_listed_and_is_what_its_module_has():
    assert set(ldm_jax.__all__) == set(dir(ldm_jax))
    for name, (module, attribute) in ldm_jax.PLACES.items():
        assert getattr(ldm_jax, name) is getattr(importlib.import_module(module), attribute)
        assert getattr(ldm_jax, name).__doc__


def test_every_task_is_there():
    assert TASKS.keys() - {'hires_to_size'} == set(ldm_jax.TASKS)  # a second way to ask for hires


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(AttributeError, match="ldm_jax has no 'txt2img'; it has .*'text_to_image'"):
        ldm_jax.txt2img  # noqa: B018
    assert not hasattr(ldm_jax, '__path_to_nowhere__')


def test_a_prompt_becomes_an_image_in_three_lines(tmp_path):
    model = tiny_models.save(tmp_path, 'text')
    pipeline = ldm_jax.open(model)
    sampling = ldm_jax.Sampling('ddim', num_steps=2, guidance=ldm_jax.Guidance(2))
    image = ldm_jax.text_to_image(pipeline, 'a red apple', seed=1, sampling=sampling)[0]
    ldm_jax.save_png(tmp_path / 'apple.png', image)
    np.testing.assert_allclose(ldm_jax.load_image(tmp_path / 'apple.png'), image, atol=1 / 127)
