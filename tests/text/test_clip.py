"""CLIP's byte-pair ids against those of OpenAI's own code."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from ldm_jax.text import clip
from ldm_jax.text.clip import END_ID, START_ID, Tokenizer

CASES = json.loads((Path(__file__).parent / 'fixtures' / 'clip_ids.json').read_text('utf-8'))


def test_ids_equal_openai():
    encode = Tokenizer().encode
    wrong = [text for text, ids in CASES['texts'] if encode(text) != ids]
    assert len(CASES['texts']) == 802
    assert not wrong


def test_long_texts_equal_openai():
    encode = Tokenizer().encode
    for text, times, count, digest in CASES['repeated']:
        ids = encode(text * times)
        assert len(ids) == count
        assert hashlib.sha256(','.join(map(str, ids)).encode()).hexdigest() == digest


def test_time_is_linear_in_the_length_of_a_word():
    word = ''.join(random.Random(0).choices('etaoinshrdlu', k=100_000))
    encode = Tokenizer().encode
    encode('')
    start = time.process_time()
    encode(word)
    # It takes 0.3 s; scanning the whole word for each merge takes 3 s for a tenth of it, so minutes for all.
    assert time.process_time() - start < 5


def test_row_is_start_text_end_padding():
    rows = Tokenizer()(['a photo of a cat', ''])
    assert rows.dtype == np.int32
    assert rows.shape == (2, 77)
    assert rows[0].tolist() == [START_ID, 320, 1125, 539, 320, 2368] + [END_ID] * 71
    assert rows[1].tolist() == [START_ID] + [END_ID] * 76
    openclip = Tokenizer(context_length=8, pad_id=0)('a photo of a cat')
    assert openclip.tolist() == [[START_ID, 320, 1125, 539, 320, 2368, END_ID, 0]]


def test_text_that_just_fits_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        row = Tokenizer(context_length=7)('a photo of a cat')
    assert row.tolist() == [[START_ID, 320, 1125, 539, 320, 2368, END_ID]]


def test_cut_words_are_named_and_the_end_token_is_kept():
    with pytest.warns(UserWarning, match="4 of its 6 tokens fit .* left out: 'cat sleeping'") as caught:
        rows = Tokenizer(context_length=6)(['a dog', 'A photo of a cat SLEEPING'])
    assert rows.tolist() == [
        [START_ID, 320, 1929, END_ID, END_ID, END_ID],
        [START_ID, 320, 1125, 539, 320, END_ID],
    ]
    assert [w.filename for w in caught] == [__file__]  # the warning points at the caller


def test_warning_of_an_enormous_text_is_short():
    with pytest.warns(UserWarning, match='more characters') as caught:
        Tokenizer()('word ' * 2000)
    assert len(str(caught[0].message)) < 400


def test_cut_words_behind_a_spelled_out_end_token_are_named():
    with pytest.warns(UserWarning, match='left out: .*endoftext.*cat'):
        Tokenizer(context_length=3)('a <|endoftext|> cat')


def test_decode_gives_the_words_back():
    clip = Tokenizer()
    text = "It's a naïve 東京 cat, 20 dogs & 👩‍👩‍👧!"
    assert clip.decode(clip(text)[0]) == "it 's a naïve 東京 cat , 2 0 dogs & 👩‍👩‍👧!"
    assert clip.decode(clip.encode(text)) == clip.decode(Tokenizer(pad_id=0)(text)[0])
    assert clip.decode([]) == clip.decode(clip('')[0]) == ''
    assert clip.decode(clip.encode('東')[:1]) == '�'  # the first bytes of a letter


@pytest.mark.parametrize(
    ('ids', 'message'),
    [
        ([[320, 1125]], r'shape \[1, 2\]'),
        ([0.5], 'float64'),
        ([320, 49408], 'No id 49408'),
        ([-1], 'No id -1'),
    ],
)
def test_decode_refuses_what_is_not_a_row(ids, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer().decode(ids)


@pytest.mark.parametrize(
    ('texts', 'error', 'message'),
    [
        (b'a cat', TypeError, "b'a cat'"),
        ([b'a cat'], TypeError, 'Decode it first'),
        (None, TypeError, 'NoneType'),
        (7, TypeError, 'int'),
        (['a cat', None], TypeError, 'NoneType'),
        ({'a cat'}, TypeError, 'list of str'),
        ([], ValueError, 'no text'),
    ],
)
def test_bad_texts_are_refused(texts, error, message):
    with pytest.raises(error, match=message):
        Tokenizer()(texts)


def test_encode_takes_one_text():
    with pytest.raises(TypeError, match='list'):
        Tokenizer().encode(['a cat'])


@pytest.mark.parametrize('context_length', [1, 0, -77, 77.0, '77', None])
def test_bad_context_length_is_refused(context_length):
    with pytest.raises(ValueError, match='context_length'):
        Tokenizer(context_length=context_length)


@pytest.mark.parametrize('pad_id', [-1, clip.VOCAB_SIZE, None])
def test_bad_pad_id_is_refused(pad_id):
    with pytest.raises(ValueError, match='pad_id'):
        Tokenizer(pad_id=pad_id)


def test_shortest_row_has_no_text():
    assert Tokenizer(context_length=2)('').tolist() == [[START_ID, END_ID]]


def test_is_a_value():
    clip = Tokenizer(pad_id=0)
    clip('a cat')  # what it loads is not part of it, so it travels to data workers
    assert pickle.loads(pickle.dumps(clip)) == clip == Tokenizer(pad_id=0)
    assert hash(clip) == hash(Tokenizer(pad_id=0))


@pytest.mark.parametrize('module', ['clip', 'bert'])
def test_import_loads_nothing_heavy(module):
    code = (
        f'import sys, ldm_jax.text.{module};'
        "print([m for m in ('transformers', 'torch', 'jax', 'tokenizers', 'ftfy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '[]\n'
