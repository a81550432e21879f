import json
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ldm_jax.requests import infotext

TEXT_TO_IMAGE = """masterpiece, (best quality:1.2), a fox, <lora:foxes:0.8>
BREAK
autumn forest, "golden hour", 35mm: f/1.4
Negative prompt: (worst quality, low quality:1.4), blurry
watermark
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Clip skip: 2, Lora hashes: "foxes: 9a1b2c3d4e5f", \
TI hashes: "easy: c74b4e810b03, bad-hands: aa7651be154c", Version: v1.10.1"""


def test_text_to_image():
    assert infotext.read(TEXT_TO_IMAGE) == {
        'Prompt': 'masterpiece, (best quality:1.2), a fox, <lora:foxes:0.8>\nBREAK\n'
        'autumn forest, "golden hour", 35mm: f/1.4',
        'Negative prompt': '(worst quality, low quality:1.4), blurry\nwatermark',
        'Steps': '20',
        'Sampler': 'DPM++ 2M',
        'Schedule type': 'Karras',
        'CFG scale': '7',
        'Seed': '965400086',
        'Size': '512x768',
        'Model hash': '6ce0161689',
        'Model': 'v1-5-pruned-emaonly',
        'Clip skip': '2',
        'Lora hashes': 'foxes: 9a1b2c3d4e5f',
        'TI hashes': 'easy: c74b4e810b03, bad-hands: aa7651be154c',
        'Version': 'v1.10.1',
    }


@pytest.mark.parametrize(
    'text',
    [
        TEXT_TO_IMAGE,
        'girl with a beret\nNegative prompt: ugly\n'
        'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b',
        'a cat\nSteps: 30, Sampler: Euler a, CFG scale: 7.5, Seed: 1, Size: 512x512, Denoising strength: 0.75, '
        'Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32, Masked content: latent noise, RNG: CPU',
        'Negative prompt: text\nSteps: 1, Sampler: DDIM, Seed: 0',
        'Steps: 1, Sampler: DDIM, Seed: 0',
        'a\n\nb\nSteps: 1, Sampler: DDIM, Hires prompt: "one, two: three\\nfour \\"five\\"", Refiner switch at: 0.8',
        '猫、夜\nSteps: 1, Sampler: DDIM, Seed: 18446744073709551615, ADetailer model 2nd: face_yolov8n.pt',
    ],
)
def test_what_the_web_ui_writes_is_written_again(text):
    assert infotext.write(infotext.read(text)) == text


def test_windows_line_ends_and_spaces():
    text = '  a dog \r\n  running\r\nNegative prompt:blurry \r\nSteps: 5,Sampler:DDIM ,  Seed:  7\r\n'
    expected = {
        'Prompt': 'a dog\nrunning',
        'Negative prompt': 'blurry',
        'Steps': '5',
        'Sampler': 'DDIM',
        'Seed': '7',
    }
    assert infotext.read(text) == expected


def test_a_prompt_alone():
    for text in ('a dog, 35mm: sharp', 'a dog\nby the sea', ''):
        assert infotext.read(text) == {'Prompt': text, 'Negative prompt': ''}


def test_json_that_other_programs_leave_unquoted():
    text = (
        'a dog\nSteps: 5, Hashes: {"vae": "735e4c3a44", "model": "ad1a10552b"}, Seed: 7, '
        'Civitai resources: [{"type": "checkpoint", "weight": 1}, {"a, b": 2}], Odd: [not json, End: 1'
    )
    found = infotext.read(text)
    assert json.loads(found['Hashes']) == {'vae': '735e4c3a44', 'model': 'ad1a10552b'}
    assert json.loads(found['Civitai resources'])[1] == {'a, b': 2}
    assert (found['Seed'], found['Odd'], found['End']) == ('7', '[not json', '1')


def test_lines_behind_the_settings():
    """The dynamic-prompts extension adds its templates there."""
    text = 'a red car\nSteps: 5, Sampler: DDIM, Seed: 7\nTemplate: a {red|blue} car\n, fast: yes\nNegative Template: x'
    found = infotext.read(text)
    assert (found['Prompt'], found['Seed']) == ('a red car', '7')
    assert (found['Template'], found['Negative Template']) == ('a {red|blue} car\n, fast: yes', 'x')


def web_ui_reading(line):
    """Settings that the web UI finds in a line, by its grammar stated as one regular expression."""
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', line)
    return {key: json.loads(value) if value[:1] == '"' else value for key, value in pairs}


BASE = (
    'Steps: 2, Sampler: Euler a, Schedule type: Automatic, CFG scale: 2, Seed: 5, Size: 32x32, Model: emoji32'
)


@pytest.mark.parametrize('negative', ['', 'blurry, dog'])
@pytest.mark.parametrize(
    ('lines', 'templates'),
    [
        (['Negative Template: fog, 0.5, 0.7'], {'Negative Template': 'fog, 0.5, 0.7'}),
        (
            ['Negative Template: fog: 0.5, rain: 0.7, haze: 1'],
            {'Negative Template': 'fog: 0.5, rain: 0.7, haze: 1'},
        ),
        (['Template: (fog:0.5), (rain:0.7), (haze:1)'], {'Template': '(fog:0.5), (rain:0.7), (haze:1)'}),
        (
            [
                'Template: a {red|blue} car',
                '(fog:0.5), (rain:0.7), (haze:1)',
                'Negative Template: x:1, yy:2, zz:3',
            ],
            {
                'Template': 'a {red|blue} car\n(fog:0.5), (rain:0.7), (haze:1)',
                'Negative Template': 'x:1, yy:2, zz:3',
            },
        ),
        (['Template: a', 'Negative Template: '], {'Template': 'a', 'Negative Template': ''}),
    ],
)
def test_templates_are_kept_apart_whatever_they_look_like(lines, templates, negative):
    prompts = ['a red apple, noto style', *([f'Negative prompt: {negative}'] if negative else [])]
    found = infotext.read('\n'.join([*prompts, BASE, *lines]))
    assert {name: found.pop(name) for name in templates} == templates
    assert found == infotext.read('\n'.join([*prompts, BASE]))
    assert (found['Prompt'], found['Negative prompt'], found['Steps']) == (
        'a red apple, noto style',
        negative,
        '2',
    )


letters = st.characters(exclude_categories=['Cs'])
names = st.from_regex(r'\w[\w \-/]*\w', fullmatch=True).filter(
    lambda n: n not in ('Prompt', 'Negative prompt')
)
values = st.one_of(
    st.text(letters), st.text('",:\\\n{}[] a1'), st.integers().map(str), st.just('{"a": 1}'), st.just('"x"')
)
lines = st.one_of(
    st.text(letters),
    st.text('",:(){} a1'),
    st.sampled_from(['Steps: 1, Seed: 2, a1: b', 'Negative prompt: x', 'Template: a', ' BREAK', '']),
)
text = st.one_of(
    st.text(letters),
    st.text('"\'\\,:()[]{}<>|\n\r\t \x0b\x85\u2028a1'),
    st.lists(lines, max_size=4).map('\n'.join),
)


@settings(deadline=None, max_examples=100)
@given(text, text, st.dictionaries(names, values, min_size=3, max_size=6))
def test_what_is_written_is_read_back(prompt, negative, fields):
    fields = {'Prompt': prompt, 'Negative prompt': negative, 'Steps': '1', **fields}
    text = infotext.write(fields)
    assert infotext.read(text) == fields
    assert infotext.write(infotext.read(text)) == text


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(names, values, min_size=3, max_size=6))
def test_the_web_ui_reads_what_is_written(fields):
    assert web_ui_reading(infotext.write(fields)) == fields


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.text(), st.text('",:\\\n{}[] aS')))
def test_reading_never_fails(text):
    found = infotext.read(text)
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize('part', ['a ', ' ', 'ab: [', 'ab: "', 'ab: [1, ', '{"a":', 'ab: "\\', 'ab: c, '])
def test_hostile_texts_take_no_longer(part):
    """With anything quadratic this would take minutes, with unbounded recursion it would raise."""
    infotext.read('Steps: ' + part * (300_000 // len(part)))


def test_values_need_not_be_text_and_none_is_left_out():
    text = infotext.write({'Prompt': 'a', 'Steps': 20, 'CFG scale': 7.5, 'Tiling': True, 'Model': None})
    assert text == 'a\nSteps: 20, CFG scale: 7.5, Tiling: True'


@pytest.mark.parametrize(
    'name', ['x', 'Steps(Prior)', 'a:b', 'Model,', ' Seed', 'Seed ', '-Seed', 'a' * 101, '']
)
def test_names_that_no_reader_finds(name):
    with pytest.raises(ValueError, match=f'Setting {re.escape(repr(name))} cannot be written'):
        infotext.write({'Steps': 1, 'Seed': 1, 'Sampler': 'DDIM', name: 1})


def test_too_few_settings():
    with pytest.raises(ValueError, match=r"2 settings, \['Steps', 'Seed'\], would be read as a prompt"):
        infotext.write({'Prompt': 'a', 'Steps': 1, 'Seed': 1})
