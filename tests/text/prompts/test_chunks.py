"""Chunks as the web UI and ComfyUI make them, by every recorded answer of theirs; ComfyUI's weights."""

import contextlib
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.text import clip
from ldm_jax.text.prompts import attention, chunks, comfyui
from ldm_jax.text.prompts.attention import Fragment
from tests.text.prompts.cases import agrees, sections, text_of

ENCODE = clip.Tokenizer().encode


def runs(weights):
    return [[weight, len(list(group))] for weight, group in itertools.groupby(weights)]


def test_chunks_of_the_web_ui():
    for case in sections()['a1111_chunks']:
        plain = case.get('emphasis') == 'None'
        found = [Fragment(case['in'], 1.0)] if plain else attention.fragments(case['in'])
        names = chunks.Names(case.get('embeddings', {}), ENCODE)
        if 'error' in case:
            with pytest.raises(ValueError, match="word 'cat' has 80 vectors"):
                chunks.web_ui(found, ENCODE, 75, names)
            continue
        made = chunks.web_ui(found, ENCODE, 75, names, case.get('backtrack', 20))
        expected = case['out']['chunks']
        assert [each.ids for each in made] == [each['ids'] for each in expected], case['in']
        weights = [runs([1.0] * len(each.ids) if plain else each.weights) for each in made]
        assert weights == [each['weights'] for each in expected], case['in']
        assert [[list(word) for word in each.words] for each in made] == [
            each['embeddings'] for each in expected
        ]


def test_weights_of_comfyui():
    for case in sections()['comfy_weights']:
        found = comfyui.fragments(text_of(case))
        if 'error' in case:  # the original recurses too deep; this does not
            assert [each.text for each in found] == ['(a']
            continue
        assert agrees(case, found), (case, found)


def test_chunks_of_comfyui():
    for case in sections()['comfy_batches']:
        made, _ = chunks.comfyui(comfyui.fragments(case['in']), ENCODE, 75, {})
        assert [dict(ids=each.ids, weights=runs(each.weights)) for each in made] == case['out']
    found, unknown = chunks.comfyui(
        comfyui.fragments('a (embedding:moss, house:1.2) embedding:none x'), ENCODE, 75, dict(moss=2)
    )
    assert found[0].words == [(1, 'moss')]
    assert found[0].ids == [320, 0, 0, *ENCODE(', house'), *ENCODE('x')]
    assert unknown == ['none']


def recursive(text, weight=1.0):
    """ComfyUI's rule, as it is stated there."""
    pieces, piece, level = [], '', 0
    for letter in text:
        level += (letter == '(') - (letter == ')')
        if letter == '(' and level == 1:
            pieces, piece = [*pieces, *[piece] * bool(piece)], '('
        elif letter == ')' and level == 0:
            pieces, piece = [*pieces, piece + ')'], ''
        else:
            piece += letter
    found = []
    for each in [*pieces, *[piece] * bool(piece)]:
        if len(each) < 2 or each[0] != '(' or each[-1] != ')':
            found.append((each, weight))
            continue
        inner, its, colon = each[1:-1], weight * 1.1, each[1:-1].rfind(':')
        if colon > 0:
            with contextlib.suppress(ValueError):
                inner, its = inner[:colon], float(inner[colon + 1 :])
        found += recursive(inner, its)
    return found


@given(st.text(st.sampled_from('a(): 1.5'), max_size=30))
@settings(max_examples=400, deadline=None)
def test_weights_of_comfyui_by_its_rule(text):
    assert comfyui.fragments(text) == recursive(text)


def test_time_is_in_proportion_to_the_text():
    for piece in ('(', ')', '(:', '(a:1)', ')(', '(((a))', 'a)'):
        start = time.process_time()
        comfyui.fragments(piece * (20_000 // len(piece)))
        comfyui.fragments('(' * 10_000 + piece + ')' * 9_000)
        assert time.process_time() - start < 1, piece
