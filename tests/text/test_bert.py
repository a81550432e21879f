"""BERT's WordPiece ids against transformers on the same small vocabulary."""

import json
import random

import numpy as np
import pytest

from ldm_jax.text.bert import Tokenizer

huggingface_hub = pytest.importorskip('huggingface_hub')
transformers = pytest.importorskip('transformers')

WORDS = (
    "a an the photo of cat dog cafe naive resume it s don t ' , . ! ? - _ & < > [ ] ( ) # @ 2 0 24 10 "
    'un ##aff ##able ##s ##ing ##ed play run ##n ss strasse istanbul i ##i ##̇ σ ς ο ##δ ##υ ##ς '
    '東 京 日 本 語 の テ ##キ ##ス ##ト 한 ##국 x ##x cls sep mask pad unk 😀 👩 — “ ” … ½ é'
)
# [CLS] and [SEP] stand where bert-base-uncased has them, at 101 and 102.
VOCAB = ['[PAD]', *(f'[unused{i}]' for i in range(99)), '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS.split()]

TEXTS = [
    '',
    ' ',
    'a photo of a cat',
    'A PHOTO of a Cat!!',
    'café naïve résumé RÉSUMÉ',
    'cafe\u0301 e\u0301',
    'unaffable cats playing, runned',
    '東京日本語 cat東cat のテキスト 한국',
    "it's don't",
    'a.b-c_d (2024) #10 @2',
    'unknownword cat zzz',
    'x' * 100,
    'x' * 101,
    'a\tb\nc\r\nd\u00a0a\u2003the\u3000dog',
    'c\x00at d\x01og do\u200bg do\u00adg\ufeff \ufffd',
    '[CLS] cat [SEP] dog [MASK] [PAD] [UNK]',
    '[cls] [sep] cat[SEP]dog',
    'İstanbul STRASSE Straße ΟΔΥΣ',
    '😀😀 👩\u200d👩 “cat” … ½ —',
    '&amp; <b>',
    'Z̷̧̛a̴͕̍',
    '\u0301',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the vocabulary as vocab.txt."""
    path = tmp_path_factory.mktemp('bert')
    (path / 'vocab.txt').write_text('\n'.join(VOCAB) + '\n', 'utf-8')
    return path


@pytest.fixture(scope='module')
def reference(folder):
    return transformers.BertTokenizerFast.from_pretrained(folder)


def rows_of(reference, texts, length=77):
    return reference(texts, truncation=True, max_length=length, padding='max_length')['input_ids']


def test_ids_equal_transformers(folder, reference):
    rows = Tokenizer(folder / 'vocab.txt')(TEXTS[:11] + TEXTS[13:])
    assert rows.dtype == np.int32
    assert rows.tolist() == rows_of(reference, TEXTS[:11] + TEXTS[13:])
    assert Tokenizer(folder / 'vocab.txt', 128)(TEXTS).tolist() == rows_of(reference, TEXTS, 128)


def test_random_texts_equal_transformers(folder, reference):
    rng = random.Random(0)
    pieces = [*TEXTS[2:], *VOCAB[100:], ' ', ' ', '\n', *map(chr, range(0x20, 0x250)), *'́̂ßẞİǅΣςKﬁＡ①가א中']
    texts = [''.join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(500)]
    ours = Tokenizer(folder)
    assert [ours.encode(text) for text in texts] == reference(texts, add_special_tokens=False)['input_ids']


def test_known_row(folder):
    # lowercased, accent stripped, pieces marked by ##, an unknown word
    ids = [101, *map(VOCAB.index, ['the', 'cafe', 'un', '##aff', '##able', '[UNK]', '東', '京', '!']), 102]
    assert Tokenizer(str(folder), 13)('The CAFÉ unaffable qqq東京!').tolist() == [[*ids, 0, 0]]


def test_tokenizer_json_gives_the_same_ids(folder, reference, tmp_path):
    # Saved with a length of its own, which must not cut or fill ours.
    reference.backend_tokenizer.enable_truncation(4)
    reference.backend_tokenizer.enable_padding(length=4)
    reference.backend_tokenizer.save(str(tmp_path / 'tokenizer.json'))
    reference.backend_tokenizer.no_truncation()
    reference.backend_tokenizer.no_padding()
    expected = Tokenizer(folder, 128)(TEXTS)
    for vocab in (tmp_path, tmp_path / 'tokenizer.json'):
        np.testing.assert_array_equal(Tokenizer(vocab, 128)(TEXTS), expected)


def test_cut_words_are_named_and_the_end_token_is_kept(folder, reference):
    text = 'a photo of a cat, unaffable'
    with pytest.warns(UserWarning, match="4 of its 9 tokens fit .* left out: 'cat, unaffable'"):
        row = Tokenizer(folder, 6)(text)
    assert row.tolist() == rows_of(reference, [text], 6)


def test_surrogates(folder):
    ours = Tokenizer(folder)
    assert ours.encode('c\ud800at') == ours.encode('cat')
    assert ours.encode('\ud83d\ude00') == [VOCAB.index('😀')]


def test_decode_gives_the_words_back(folder):
    ours = Tokenizer(folder)
    assert ours.decode(ours('Unaffable CATS, playing!')[0]) == 'unaffable cats, playing!'
    with pytest.raises(ValueError, match=f'No id {len(VOCAB)}'):
        ours.decode([len(VOCAB)])


@pytest.mark.parametrize(('texts', 'error'), [(b'cat', TypeError), ([None], TypeError), ([], ValueError)])
def test_bad_texts_are_refused(folder, texts, error):
    with pytest.raises(error):
        Tokenizer(folder)(texts)


def test_bad_context_length_is_refused():
    with pytest.raises(ValueError, match='context_length 1 '):
        Tokenizer(context_length=1)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'No vocabulary file .*nowhere\.txt'):
        Tokenizer(tmp_path / 'nowhere.txt')('cat')
    with pytest.raises(FileNotFoundError, match='neither tokenizer'):
        Tokenizer(tmp_path)('cat')


def test_what_is_not_a_bert_vocabulary_is_refused(tmp_path):
    (tmp_path / 'vocab.txt').write_text('[PAD]\n[UNK]\ncat\n')
    with pytest.raises(ValueError, match=r"lacks \['\[CLS\]', '\[SEP\]'\]"):
        Tokenizer(tmp_path)('cat')
    (tmp_path / 'tokenizer.json').write_text(json.dumps({'no': 'tokenizer'}))
    with pytest.raises(ValueError, match=r'Cannot read the vocabulary .*tokenizer\.json'):
        Tokenizer(tmp_path)('cat')


def test_hub_id_is_fetched_once(folder, reference, tmp_path, monkeypatch):
    reference.backend_tokenizer.save(str(tmp_path / 'tokenizer.json'))
    asked = []

    def fetch(*request):
        asked.append(request)
        return str(tmp_path / 'tokenizer.json')

    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', lambda *request: None)
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fetch)
    ours = Tokenizer('somebody/bert', 128)
    for _ in range(2):
        np.testing.assert_array_equal(ours(TEXTS), Tokenizer(folder, 128)(TEXTS))
    assert asked == [('somebody/bert', 'tokenizer.json')]


def test_cached_hub_id_needs_no_network(folder, reference, tmp_path, monkeypatch):
    reference.backend_tokenizer.save(str(tmp_path / 'tokenizer.json'))
    monkeypatch.setattr(
        huggingface_hub, 'try_to_load_from_cache', lambda *_: str(tmp_path / 'tokenizer.json')
    )
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', lambda *_: pytest.fail('asked the hub'))
    np.testing.assert_array_equal(Tokenizer('somebody/cached', 128)(TEXTS), Tokenizer(folder, 128)(TEXTS))


@pytest.mark.parametrize('vocab', ['nobody/nothing', 'not/a/hub-id'])
def test_offline_error_says_what_to_do(vocab, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match=f'No vocabulary .{vocab}.*give its path as vocab'):
        Tokenizer(vocab)('cat')
