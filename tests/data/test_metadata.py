"""Rows of metadata files, and where they stand; everything that is no row is named by file, line and value."""

import codecs
import json

import pytest

from ldm_jax.data import metadata

FEW = {'file_name': 'a.png', 'caption': 'a cat'}


def jsonl(text, name='metadata.jsonl'):
    return metadata.read(text.encode() if isinstance(text, str) else text, name)


def table(text):
    return jsonl(text, 'deep/metadata.csv')


def test_rows_of_json_lines_know_their_lines():
    text = f'{json.dumps(FEW)}\r\n\n  \n{json.dumps(FEW | {"style": "flat"})}'
    assert jsonl(text) == [
        metadata.Row('line 1 of metadata.jsonl', FEW),
        metadata.Row('line 4 of metadata.jsonl', FEW | {'style': 'flat'}),
    ]


@pytest.mark.parametrize('inside', ['\u2028', '\u2029', '\x85', '\u3000'])
def test_separators_of_unicode_do_not_end_a_json_line(inside):
    row = FEW | {'caption': f'a{inside}cat'}
    assert [found.fields for found in jsonl(json.dumps(row, ensure_ascii=False))] == [row]


def test_a_metadata_file_may_be_utf_16_with_its_mark():
    data = codecs.BOM_UTF16_LE + json.dumps(FEW).encode('utf-16-le')
    assert [row.fields for row in jsonl(data)] == [FEW]
    with pytest.raises(
        ValueError, match=r'metadata\.jsonl is not UTF-8: .* at byte \d+ \(e9 .*Save it as UTF-8'
    ):
        jsonl(json.dumps(FEW | {'caption': 'café'}, ensure_ascii=False).encode('cp1252'))


@pytest.mark.parametrize(
    'line',
    [
        '[1, 2]',
        '3',
        '"a.png"',
        'null',
        'nonsense',
        '{',
        '[' * 100_000,
        '[["file_name", "a.png"]]',
        '1' * 5000,
    ],
)
def test_a_line_that_is_no_object_is_named(line):
    with pytest.raises(ValueError, match=r'^line 2 of metadata\.jsonl is no JSON object') as raised:
        jsonl(f'{json.dumps(FEW)}\n{line}')
    assert len(str(raised.value)) < 300


def test_the_value_of_a_line_is_quoted():
    with pytest.raises(ValueError, match=r'no JSON object: \[1, 2\]\.'):
        jsonl('[1, 2]')


@pytest.mark.parametrize('name', [None, '', 3, ['a.png'], True])
def test_a_file_name_is_a_text(name):
    with pytest.raises(ValueError, match=r"line 1 of metadata\.jsonl: 'file_name'") as raised:
        jsonl(json.dumps({'file_name': name, 'caption': 'x'}))
    assert name is None or repr(name) in str(raised.value)


def test_a_row_without_a_file_name_says_what_it_has():
    with pytest.raises(ValueError, match=r"'file_name' is not there; the row has \['file'\]"):
        jsonl('{"file": "a.png"}')


def test_a_list_of_texts_is_a_caption():
    assert jsonl(json.dumps(FEW | {'caption': ['a cat', 'a feline']}))[0].fields['caption'] == [
        'a cat',
        'a feline',
    ]
    assert jsonl(json.dumps(FEW | {'caption': None}))[0].fields['caption'] is None


@pytest.mark.parametrize(
    'value', ['NaN', '-Infinity', 'true', '{"en": "a cat"}', '[]', '["a cat", 3]', '[null]']
)
def test_a_caption_that_is_no_text_is_named_with_its_line_and_value(value):
    text = json.dumps(FEW) + '\n{"file_name": "b.png", "caption": ' + value + '}'
    with pytest.raises(
        ValueError, match=r'^line 2 of metadata\.jsonl: caption is .+; expected a text'
    ) as raised:
        jsonl(text)
    assert repr(json.loads(value)) in str(raised.value)


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_every_line_end_ends_a_row_of_a_table(end):
    rows = table(end.join(['file_name,caption', 'a.png,a cat', '', f'b.png,"two{end}lines, ""quoted"""', '']))
    assert [row.fields for row in rows] == [
        {'file_name': 'a.png', 'caption': 'a cat'},
        {'file_name': 'b.png', 'caption': f'two{end}lines, "quoted"'},
    ]
    assert rows[0].place == 'line 2 of deep/metadata.csv'


def test_a_table_holds_long_fields_and_separators_of_unicode():
    rows = table(f'file_name,caption\na.png,{"x" * 140_000}\nb.png,a\u2028cat\x85\x0c!\n')
    assert len(rows[0].fields['caption']) == 140_000
    assert rows[1].fields['caption'] == 'a\u2028cat\x85\x0c!'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'file_name,caption\na.png,a dog\na.png,a cat, sitting\n',
            r'^line 3 of deep/metadata\.csv has 3 fields, and its header 2 \(file_name, caption\): a\.png,a cat, '
            r'sitting\. Put a text that has commas in double quotes\.',
        ),
        ('file_name,caption\na.png\n', r'^line 2 of deep/metadata\.csv has 1 fields'),
        (
            'file_name,caption\na.png,"a cat\nb.png,a dog\n',
            r'^line 3 of deep/metadata\.csv: unexpected end of data',
        ),
        ('file_name,caption\na.png,"a" cat\n', r'^line 2 of deep/metadata\.csv: .*expected after'),
        (
            'file_name,caption,caption\na.png,x,y\n',
            r"^line 1 of deep/metadata\.csv names the column 'caption' twice",
        ),
        ('file_name;caption\na.png;x\n', r"'file_name' is not there; the row has \['file_name;caption'\]"),
    ],
)
def test_a_table_that_does_not_fit_its_header_is_named_by_line(text, message):
    with pytest.raises(ValueError, match=message):
        table(text)


def test_empty_files_have_no_rows():
    assert jsonl('') == jsonl('\n') == table('') == table('file_name,caption\n') == []
