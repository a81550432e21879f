"""What every source that needs no file must do (the others have tests of their own)."""

import numpy as np
import pytest

from ldm_jax import build

SPECS = [dict(name='synthetic', image_size=16)]


@pytest.mark.parametrize('spec', SPECS, ids=lambda spec: spec['name'])
def test_examples_are_images_with_texts_by_index(spec):
    source = build.build('data', spec)
    texts = set()
    for i in range(len(source)):
        example = source[i]
        assert example['image'].shape == (16, 16, 3)
        assert example['image'].dtype == np.uint8
        assert example['text'] == source.caption(i)
        np.testing.assert_array_equal(example['image'], source[i]['image'])
        texts.add(example['text'])
    assert len(texts) == len(source)
