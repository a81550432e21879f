"""A dataset of the catalogue's kind, prepared here, read without TensorFlow."""

import io
import pickle
import shutil
import sys

import numpy as np
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
                'captions': tfds.features.Sequence({'text': tfds.features.Text(), 'id': np.int64}),
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
            captions = [{'text': f'{word} {i}', 'id': i} for word in ('first', 'second')]
            yield i, {'image': file, 'label': i, 'caption': f'number {i}', 'captions': captions}


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
    with pytest.raises(ValueError, match=r"image='thumbnail'.*\['image'\].*'caption'"):
        Source('swatches', image='thumbnail', data_dir=data_dir)


def test_a_class_is_numbered_and_captions_in_lists_are_reached(data_dir):
    source = Source('swatches:1.0.0', text='{captions[text][1]}', label='label', data_dir=data_dir)
    found = {source[i]['text']: source[i] for i in range(3)}
    assert found.keys() == {'second 0', 'second 1', 'second 2'}
    assert all(found[f'second {i}']['label'] == i for i in range(3))
    assert found['second 1']['image'].shape == (8, 12, 3)
    assert source.shape(0) == (8, 12)
    assert pickle.loads(pickle.dumps(source))[2]['text'] == source[2]['text']


def test_versions_and_splits_are_those_of_the_catalogue(data_dir):
    assert len(Source('swatches', split='train[:2]', data_dir=data_dir)) == 2
    assert len(Source('swatches', split='train[:1]+train[2:]', data_dir=data_dir)) == 2
    with pytest.raises(ValueError, match='test.*train'):
        Source('swatches', split='test', data_dir=data_dir)
    with pytest.raises(ValueError, match=r'9\.9\.9'):
        Source('swatches:9.9.9', data_dir=data_dir)
    with pytest.raises(ValueError, match="no 'no_such_set'.*data_dir"):
        Source('no_such_set', data_dir=data_dir)
    with pytest.raises(FileNotFoundError, match=r'swatches is not prepared in .*elsewhere.*download=True'):
        Source('swatches', data_dir=f'{data_dir}/elsewhere')


def test_a_dataset_as_tfrecord_says_what_to_do(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / 'x')
    info = tmp_path / 'x' / 'swatches' / '1.0.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(ValueError, match="no access by row.*file_format='array_record'"):
        Source('swatches', data_dir=str(tmp_path / 'x'))
