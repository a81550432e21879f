"""A dataset of the catalogue's kind, prepared here, read without TensorFlow."""

import io
import sys

import pytest
from PIL import Image

from ldm_jax.data.tfds import Source

tfds = pytest.importorskip('tensorflow_datasets')
COLOURS = [(255, 0, 0), (0, 0, 255), (0, 128, 0)]


class Swatches(tfds.core.GeneratorBasedBuilder):
    """Colours with a class and a caption."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
                'label': tfds.features.ClassLabel(names=['red', 'blue', 'green']),
                'caption': tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for i, colour in enumerate(COLOURS):
            file = io.BytesIO()
            Image.new('RGB', (12, 8), colour).save(file, 'PNG')
            file.seek(0)
            yield i, {'image': file, 'label': i, 'caption': f'number {i}'}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tfds')
    Swatches(data_dir=folder, file_format='array_record').download_and_prepare()
    return str(folder)


def test_examples_are_squares_with_labels_and_texts_spelled_out(data_dir):
    source = Source('swatches', image_size=4, text='{caption}: {label}', data_dir=data_dir)
    found = {source[i]['text']: source[i]['image'] for i in range(len(source))}
    assert found.keys() == {'number 0: red', 'number 1: blue', 'number 2: green'}
    assert found['number 1: blue'].shape == (4, 4, 3)
    assert (found['number 1: blue'] == (0, 0, 255)).all()
    assert {source.caption(i) for i in range(3)} == found.keys()
    assert 'tensorflow' not in sys.modules


def test_a_feature_that_is_not_there_is_named(data_dir):
    with pytest.raises(ValueError, match=r"'title'.*'caption'"):
        Source('swatches', image_size=4, text='{title}', data_dir=data_dir)
