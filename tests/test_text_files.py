"""Bytes to text in the encodings that are known, and to lines that end at '\\n' and '\\r\\n' alone."""

import codecs

import pytest

from ldm_jax import text_files

TEXT = 'a café\u2028in the rain\n'


@pytest.mark.parametrize(
    'data',
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode('utf-16-le'),
        codecs.BOM_UTF16_BE + TEXT.encode('utf-16-be'),
    ],
    ids=['utf-8', 'utf-8 with mark', 'utf-16-le', 'utf-16-be'],
)
def test_known_encodings_give_the_text_without_its_mark(data):
    assert text_files.decode(data) == TEXT


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (
            TEXT.replace('\u2028', ' ').encode('cp1252'),
            r'not UTF-8: .*byte 5 \(e9 20 69 6e\)\. Save it as UTF-8',
        ),
        ('日本'.encode('shift-jis'), 'not UTF-8'),
        (TEXT.encode('utf-16-le'), 'not UTF-8'),
        ('plain'.encode('utf-16-le'), 'NUL at character 1'),
        ('plain'.encode('utf-32'), 'NUL'),
        (codecs.BOM_UTF16_LE + b'a\0b', 'not UTF-16'),
        (codecs.BOM_UTF16_LE + b'\0\xd8a\0', 'not UTF-16'),
        (b'\xed\xa0\x80', 'not UTF-8'),
    ],
    ids=[
        'cp1252',
        'shift-jis',
        'utf-16 unmarked',
        'ascii in utf-16 unmarked',
        'utf-32',
        'odd',
        'half a pair',
        'surrogate',
    ],
)
def test_other_bytes_are_refused(data, reason):
    with pytest.raises(text_files.NotText, match=reason):
        text_files.decode(data)


@pytest.mark.parametrize(
    'inside', ['\u2028', '\u2029', '\x85', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\r', '\t', '\u3000']
)
def test_only_line_feeds_end_a_line(inside):
    assert text_files.lines(f'one{inside}more\ntwo\r\n\nfour') == [f'one{inside}more', 'two', '', 'four']


@pytest.mark.parametrize(
    ('text', 'found'), [('', []), ('\n', ['']), ('a', ['a']), ('a\n', ['a']), ('a\n\n', ['a', ''])]
)
def test_the_end_of_a_text_is_no_line(text, found):
    assert text_files.lines(text) == found


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / 'prompts.txt'
    path.write_bytes(codecs.BOM_UTF8 + TEXT.encode())
    assert text_files.read(path) == TEXT
    path.write_bytes(b'\xff')
    with pytest.raises(text_files.NotText, match=r'prompts\.txt is not UTF-8'):
        text_files.read(path)
    with pytest.raises(FileNotFoundError):
        text_files.read(tmp_path / 'none')
