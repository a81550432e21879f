"""Images with captions from a folder or a zip file."""

import codecs
import collections
import json
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt, Report
from ldm_jax.data.image_folder import Source
from tests.data.images import BROKEN, assert_shows, image

ROWS = [
    {'file_name': 'a.png', 'caption': 'red', 'style': 'flat', 'split': 'train'},
    {'file_name': 'deep/b.webp', 'caption': 'clear', 'style': 'flat', 'split': 'test'},
    {'file_name': 'c.png', 'caption': 'blue', 'style': '3d', 'split': 'train'},
]
COLOURS = {'a.png': (255, 0, 0, 255), 'deep/b.webp': (0, 0, 0, 0), 'c.png': (0, 0, 255, 128)}


@pytest.fixture(params=['folder', 'zip'])
def path(request, tmp_path):
    folder = tmp_path / 'images'
    (folder / 'deep').mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new('RGBA', (12, 12), colour).save(folder / name, lossless=True)
    (folder / 'metadata.jsonl').write_text('\n'.join(map(json.dumps, ROWS)) + '\n')
    if request.param == 'folder':
        return str(folder)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
        for file in folder.rglob('*'):
            archive.write(file, file.relative_to(folder))
    return str(tmp_path / 'images.zip')


def test_rows_become_images_on_white_with_captions(path):
    source = Source(path, image_size=8, text='{caption}, {style} style')
    assert len(source) == 3
    assert [source[i]['text'] for i in range(3)] == ['red, flat style', 'clear, flat style', 'blue, 3d style']
    assert source.caption(2) == 'blue, 3d style'
    images = np.stack([source[i]['image'] for i in range(3)])
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == np.uint8
    assert (images[0] == (255, 0, 0)).all()
    assert (images[1] == 255).all()
    np.testing.assert_allclose(images[2, 0, 0], (127, 127, 255), atol=1)


def test_several_texts_show_each_image_with_each(path):
    source = Source(path, image_size=8, text=('{caption}', 'a {caption}'))
    assert [source[i]['text'] for i in range(len(source))] == [
        'red',
        'a red',
        'clear',
        'a clear',
        'blue',
        'a blue',
    ]
    np.testing.assert_array_equal(source[4]['image'], source[5]['image'])


def test_select_keeps_the_rows_that_match_every_field(path):
    source = Source(path, image_size=8, select=dict(split=('train',), style=('flat', 'round')))
    assert [source.name(i) for i in range(len(source))] == ['a.png']


def test_mistakes_are_named_before_any_image_is_read(path):
    with pytest.raises(ValueError, match=r"no field 'title'.*'caption'"):
        Source(path, image_size=8, text='{title}')
    with pytest.raises(ValueError, match=r"none of 3 rows.*'valid'"):
        Source(path, image_size=8, select=dict(split=('valid',)))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        Source('nowhere', image_size=8)


@pytest.fixture(params=['folder', 'zip'])
def plain(request, tmp_path):
    """Images in nested folders, some with captions beside them, and things to leave alone."""
    folder = tmp_path / 'plain'
    for i, name in enumerate(['cats/b.png', 'cats/a.JPG', 'dogs/big/c.webp', 'd.png']):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(
            image(i, kind={'JPG': 'JPEG', 'webp': 'WEBP'}.get(name.split('.')[1], 'PNG'))
        )
    for name in ('.DS_Store', '__MACOSX/cats/._a.JPG', 'readme.md', 'cats/.hidden.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'x')
    for name in ('cats/b', 'cats/a', 'd'):
        (folder / f'{name}.txt').write_text(f'it is {name} {{curly}}\n')
    return str(folder if request.param == 'folder' else zipped(folder, tmp_path / 'plain.zip'))


def zipped(folder, path):
    with zipfile.ZipFile(path, 'w') as archive:
        for file in sorted(folder.rglob('*')):
            archive.write(file, file.relative_to(folder))
    return path


def test_without_metadata_every_image_counts_and_folders_are_classes(plain):
    source = Source(plain, text='a photo of {folder}, {stem}', label='folder')
    assert [source.name(i) for i in range(len(source))] == [
        'cats/a.JPG',
        'cats/b.png',
        'd.png',
        'dogs/big/c.webp',
    ]
    assert [source[i]['text'] for i in range(4)] == [
        'a photo of cats, a',
        'a photo of cats, b',
        'a photo of , d',
        'a photo of dogs/big, c',
    ]
    assert [int(source[i]['label']) for i in range(4)] == [1, 1, 0, 2]
    assert source[0]['label'].dtype == np.int32
    assert_shows(source[1]['image'], 0)
    assert source.shape(1) == (8, 12)


def test_captions_are_of_text_files_beside_the_images(plain):
    with pytest.raises(
        ValueError, match=r"1 of 4 rows have no field 'caption'.*dogs/big/c.webp.*x\.txt beside x\.png"
    ):
        Source(plain)
    source = Source(plain, text='{caption}', select={'folder': ('cats', '')})
    assert [source.caption(i) for i in range(3)] == [
        f'it is {n} {{curly}}' for n in ('cats/a', 'cats/b', 'd')
    ]
    assert Source(plain, text='')[3]['text'] == ''


def test_metadata_in_folders_and_in_tables_are_found(tmp_path):
    for i, split in enumerate(('train', 'test')):
        (tmp_path / split / 'images').mkdir(parents=True)
        (tmp_path / split / 'images' / 'x.png').write_bytes(image(i))
    (tmp_path / 'train' / 'metadata.csv').write_text('file_name,caption,number\nimages/x.png,"one, two",10\n')
    (tmp_path / 'test' / 'metadata.jsonl').write_text(
        '{"file_name": "images/x.png", "caption": "three", "number": 9}'
    )
    source = Source(str(tmp_path), label='number')
    assert [source.name(i) for i in range(2)] == ['test/images/x.png', 'train/images/x.png']
    assert [(source[i]['text'], int(source[i]['label'])) for i in range(2)] == [
        ('three', 9),
        ('one, two', 10),
    ]
    assert_shows(source[0]['image'], 1)


def test_missing_and_broken_images_are_corrupt_and_named(path, tmp_path):
    if path.endswith('.zip'):
        path = str(tmp_path / 'images')
    (tmp_path / 'images' / 'a.png').write_bytes(BROKEN)
    (tmp_path / 'images' / 'c.png').unlink()
    zipped(tmp_path / 'images', tmp_path / 'broken.zip')
    for place in (path, str(tmp_path / 'broken.zip')):
        source = Source(place, image_size=8)
        with pytest.raises(Corrupt, match=r'a\.png: .+'):
            source[0]
        with pytest.raises(Corrupt, match=r'c\.png: not in'):
            source[2]
        assert source[1]['text'] == 'clear'


def test_a_zip_file_with_flipped_bits_names_the_image(tmp_path):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / 'a.png').write_bytes(image(0))
    data = bytearray(zipped(tmp_path / 'x', tmp_path / 'x.zip').read_bytes())
    data[60] ^= 255
    (tmp_path / 'x.zip').write_bytes(data)
    with pytest.raises(Corrupt, match=r'a\.png: .*CRC'):
        Source(str(tmp_path / 'x.zip'), text='')[0]


def test_more_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match='holds no images'):
        Source(str(tmp_path))
    (tmp_path / 'notes').write_text('x')
    with pytest.raises(ValueError, match='neither a folder nor a zip'):
        Source(str(tmp_path / 'notes'))
    (tmp_path / 'metadata.jsonl').write_text('{"file": "a.png"}')
    with pytest.raises(ValueError, match=r"line 1 .*'file_name' is not there.*\['file'\]"):
        Source(str(tmp_path))
    (tmp_path / 'metadata.jsonl').write_text('{"file_name": "a.png", "caption": null}\nnonsense')
    with pytest.raises(ValueError, match='line 2 of metadata.jsonl'):
        Source(str(tmp_path))
    (tmp_path / 'metadata.jsonl').write_text('{"file_name": "a.png", "caption": null}')
    with pytest.raises(ValueError, match=r"1 of 1 rows have no field 'caption'"):
        Source(str(tmp_path))
    with pytest.raises(ValueError, match='image_size.*0'):
        Source(str(tmp_path), text='', image_size=0)


def test_a_copy_for_another_process_reads_the_same(path):
    source = Source(path, image_size=8)
    first = source[0]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[0]['image'], first['image'])
    assert hash(copy) == hash(source)


def test_the_stamp_changes_with_the_data(path, tmp_path):
    before = Source(path).stamp
    assert Source(path).stamp == before
    if path.endswith('.zip'):
        (tmp_path / 'images' / 'new.png').write_bytes(image(5))
        zipped(tmp_path / 'images', path)
    (tmp_path / 'images' / 'a.png').write_bytes(image(5))
    assert Source(path).stamp != before


def test_values_that_no_template_can_use_are_named_by_line_before_any_image_is_read(tmp_path):
    rows = [
        {'file_name': 'a.png', 'title': 'x', 'score': 1.5},
        {'file_name': 'b.png', 'title': True, 'tags': []},
    ]
    (tmp_path / 'metadata.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r'line 2 of metadata\.jsonl: title is True; expected a text'):
        Source(str(tmp_path), text=('{file_name}', 'a {title}'))
    with pytest.raises(ValueError, match=r'line 2 of metadata\.jsonl: tags is \[\]'):
        Source(str(tmp_path), text='{tags}', select={'file_name': ('b.png',)})
    assert (
        Source(str(tmp_path), text='{title}, {score}', select={'file_name': ('a.png',)}).caption(0)
        == 'x, 1.5'
    )


def test_errors_of_metadata_name_folder_file_and_line(tmp_path):
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep' / 'metadata.csv').write_text('file_name,caption\na.png,a cat, sitting\n')
    with pytest.raises(ValueError, match=rf'{tmp_path}: line 2 of deep/metadata\.csv has 3 fields'):
        Source(str(tmp_path))
    (tmp_path / 'deep' / 'metadata.csv').write_bytes('file_name,caption\na.png,café\n'.encode('cp1252'))
    with pytest.raises(ValueError, match=rf'{tmp_path}: deep/metadata\.csv is not UTF-8'):
        Source(str(tmp_path))


def test_a_list_of_captions_is_drawn_for_each_showing(tmp_path):
    (tmp_path / 'a.png').write_bytes(image(0))
    row = {'file_name': 'a.png', 'caption': ['a cat', 'a feline', 'a kitten']}
    (tmp_path / 'metadata.jsonl').write_text(json.dumps(row))
    source = Source(str(tmp_path), text='{caption}, sitting')
    assert source[0]['text'] == source.caption(0) == 'a cat, sitting'
    assert source.captions(0) == ('a cat, sitting', 'a feline, sitting', 'a kitten, sitting')
    rngs = [np.random.default_rng(seed) for seed in range(300)]
    drawn = collections.Counter(source.view(0, rng)['text'] for rng in rngs)
    assert drawn.keys() == set(source.captions(0))
    assert min(drawn.values()) > 70
    # Crops are those of a source with one caption.
    assert [rng.random() for rng in rngs] == [np.random.default_rng(seed).random() for seed in range(300)]


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_captions_in_known_encodings_are_read_and_others_are_corrupt(tmp_path, kind):
    folder = tmp_path / 'x'
    folder.mkdir()
    texts = {
        'a': 'un café\u2028noir'.encode(),
        'b': codecs.BOM_UTF8 + 'un café'.encode(),
        'c': codecs.BOM_UTF16_LE + 'un café'.encode('utf-16-le'),
        'd': 'un café'.encode('cp1252'),
        'e': 'a cat'.encode('utf-16-le'),
    }
    for name, data in texts.items():
        (folder / f'{name}.png').write_bytes(image(0))
        (folder / f'{name}.txt').write_bytes(data)
    source = Source(str(folder if kind == 'folder' else zipped(folder, tmp_path / 'x.zip')))
    assert [source[i]['text'] for i in range(3)] == ['un café\u2028noir', 'un café', 'un café']
    for i, name in ((3, 'd'), (4, 'e')):
        with pytest.raises(Corrupt, match=rf'{name}\.txt: not UTF-8: .*Save it as UTF-8'):
            source[i]
        with pytest.raises(Corrupt, match=rf'{name}\.txt'):
            source.caption(i)
    report = Report()
    assert sum(len(batch['text']) for batch in pipeline.in_order(source, 2, report)) == 3
    assert list(report.names) == ['d.txt', 'e.txt']


def test_names_with_underscores_and_linked_folders_are_seen(tmp_path, caplog):
    folder, other = tmp_path / 'x', tmp_path / 'other'
    folder.mkdir()
    other.mkdir()
    (folder / '__cat_drawn_by_someone__0123.png').write_bytes(image(0))
    (folder / '__dogs__').mkdir()
    (folder / '__dogs__' / 'b.png').write_bytes(image(1))
    (other / 'c.png').write_bytes(image(2))
    (folder / 'linked').symlink_to(other, target_is_directory=True)
    source = Source(str(folder), text='{stem}')
    assert [source.name(i) for i in range(3)] == [
        '__cat_drawn_by_someone__0123.png',
        '__dogs__/b.png',
        'linked/c.png',
    ]
    assert_shows(source[2]['image'], 2)
    assert caplog.messages == []


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_files_that_are_left_out_are_counted_and_named_once(tmp_path, caplog, kind):
    folder = tmp_path / 'x'
    folder.mkdir()
    for name in ('a.png', '.hidden.png', 'b.heic', 'c.txt', 'd.png'):
        (folder / name).write_bytes(image(0))
    path = folder if kind == 'folder' else zipped(folder, tmp_path / 'x.zip')
    Source(str(path), text='')
    assert caplog.messages == [
        f'{path}: left out hidden: 1 (.hidden.png); files that are no images by their suffix: 1 (b.heic); '
        'texts without an image: 1 (c.txt).'
    ]
    caplog.clear()
    (folder / 'metadata.jsonl').write_text('{"file_name": "a.png"}')
    source = Source(str(folder), text='')
    pickle.loads(pickle.dumps(source))[0]
    assert len(caplog.messages) == 1
    assert 'images without a row of metadata: 1 (d.png)' in caplog.text
