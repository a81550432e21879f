"""The web UI's prompt language: every recorded answer of its own parsers, time in proportion to the text, no crash."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.text.prompts import attention, composition, styles, tags
from ldm_jax.text.prompts.schedule import schedule
from tests.text.prompts.cases import agrees, sections, text_of

ALPHABET = st.text(st.sampled_from('ab ,.:|()[]<>\\{}#+-059\nBREAKND\u55b5\u0663'), max_size=80)


@pytest.mark.parametrize('name', ['a1111_attention', 'lpw_attention'])
def test_weights(name):
    for case in sections()[name]:
        text, lpw = text_of(case), name.startswith('lpw')
        if 'error' in case:
            with pytest.raises(ValueError, match='is no number: write'):
                attention.fragments(text, lpw=lpw)
        else:
            assert agrees(case, attention.fragments(text, lpw=lpw)), case


def test_schedules():
    for case in sections()['a1111_schedule']:
        found = schedule(text_of(case), case['steps'], case['hires_steps'], old=case['old'])
        assert agrees(case, found), (case, found)
    for case in sections()['a1111_schedule_unstable']:
        assert agrees(dict(out=case['structured_first']), schedule(case['in'], case['steps'])), case


def test_parts_of_several_prompts():
    for case in sections()['a1111_and']:
        assert agrees(case, composition.parts(text_of(case))), case


def test_tags():
    for case in sections()['a1111_extra_networks']:
        text, found = tags.cut(case['in'])
        expected = case['out']
        by_kind: dict = {}
        for tag in found:
            by_kind.setdefault(tag.kind, []).append(list(tag.items))
        assert (text, by_kind) == (expected['text'], expected['found'])
        if 'lora_error' in expected:
            with pytest.raises(ValueError, match='in the tag <lora:.*: write <lora:name:0.8>'):
                tags.networks(found)
            continue
        loras, _, _ = tags.networks(found)
        values = expected.get('lora', dict(names=[], te=[], unet=[], dyn=[]))
        assert [list(each) for each in loras] == [list(each) for each in zip(*values.values(), strict=True)]
    _, (hyper,), (other,) = tags.networks(tags.cut('<hypernet:moss:0.6> <other:x>')[1])
    assert (hyper.name, hyper.strength, other.kind) == ('moss', 0.6, 'other')
    with pytest.raises(ValueError, match='has no name'):
        tags.networks(tags.cut('<lora:te=1>')[1])


def test_styles_and_comments(tmp_path):
    for case in sections()['a1111_styles']:
        assert styles.applied(case['prompt'], case['styles']) == case['out']
    for case in sections()['a1111_comments']:
        assert styles.without_comments(case['in']) == case['out']
    text = '\ufeffname,prompt,negative_prompt\nOil,"oil, {prompt}",flat\nEmpty,,\n,x,y\n'
    known = styles.parse(text)
    assert known == {'Oil': styles.Style('oil, {prompt}', 'flat'), 'Empty': styles.Style()}
    assert styles.chosen(known, ['Oil']) == [styles.Style('oil, {prompt}', 'flat')]
    with pytest.raises(ValueError, match="style 'Oli'.*Oil"):
        styles.chosen(known, ['Oli'])
    with pytest.raises(ValueError, match='name,prompt,negative_prompt'):
        styles.parse('a,b\n')


@given(ALPHABET)
@settings(max_examples=300, deadline=None)
def test_no_text_crashes(text):
    rest, found = tags.cut(styles.without_comments(text))
    for read in (lambda: tags.networks(found), lambda: attention.fragments(rest)):
        with contextlib.suppress(ValueError):  # one that says what to write instead
            read()
    for part in composition.parts(rest):
        for steps, hires in ((7, None), (7, 3)):
            entries = schedule(part.text, steps, hires)
            assert [last for last, _ in entries] == sorted({last for last, _ in entries})
            assert entries[-1].last == (hires or steps)


@given(st.text(st.characters(exclude_characters='\\()[]:|#<'), max_size=60))
@settings(max_examples=100, deadline=None)
def test_plain_text_is_unchanged(text):
    if 'BREAK' in text or 'AND' in text:
        return
    assert tags.cut(styles.without_comments(text)) == (text, [])
    assert attention.fragments(text) == [(text, 1.0)]
    assert schedule(text, 9) == [(9, text)]
    assert composition.parts(text) == [(text.rstrip(), 1.0)]


HOSTILE = [
    '(',
    '[',
    ')(',
    '[a:',
    '(a:',
    '[a|',
    '[[a:b:3]',
    '(a:1.1)',
    '\\',
    ':',
    ' BREAK ',
    '<a:',
    '[a:b:3] ',
    'AND ',
]


@pytest.mark.parametrize('piece', HOSTILE)
def test_time_is_in_proportion_to_the_text(piece):
    def seconds(count):
        text = piece * count
        start = time.process_time()
        rest, _ = tags.cut(text)
        for part in composition.parts(rest):
            schedule(part.text, 4)
        with contextlib.suppress(ValueError):
            attention.fragments(text)
        return time.process_time() - start

    counts = 5_000 // len(piece), 20_000 // len(piece)
    short, long = (min(seconds(count) for _ in range(2)) for count in counts)
    assert long < 12 * short + 0.1, (short, long)  # 4 in proportion, 16 in its square


def test_brackets_around_too_many_pieces_are_refused():
    with pytest.raises(ValueError, match='nested around too many pieces'):
        attention.fragments('(a' * 5_000)
