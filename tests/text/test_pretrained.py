"""Tokenizers of other families against their own rules, on vocabularies made on the spot."""

import json
import warnings

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ldm_jax import build

PIECES = [
    ('<pad>', 0.0),
    ('</s>', 0.0),
    ('<unk>', 0.0),
    ('▁red', -1.0),
    ('▁apple', -1.0),
    ('▁a', -1.5),
    ('s', -2.0),
]


@pytest.fixture(scope='module')
def t5(tmp_path_factory):
    """A folder as published for T5: unigram pieces, </s> behind every text, padding 0."""
    folder = tmp_path_factory.mktemp('t5')
    engine = tokenizers.Tokenizer(models.Unigram(PIECES, unk_id=2))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    engine.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
    engine.save(str(folder / 'tokenizer.json'))
    special = dict(pad_token='<pad>', eos_token='</s>', unk_token='<unk>')
    (folder / 'tokenizer_config.json').write_text(
        json.dumps(special | dict(tokenizer_class='PreTrainedTokenizerFast'))
    )
    return folder


@pytest.fixture(scope='module')
def bert(tmp_path_factory):
    """A BERT of ten words, in its own order."""
    folder = tmp_path_factory.mktemp('bert')
    words = {
        word: i
        for i, word in enumerate(
            ['[UNK]', '[PAD]', '[SEP]', '[CLS]', '[MASK]', 'red', 'apple', 'a', '##s', 'rose']
        )
    }
    engine = tokenizers.Tokenizer(models.WordPiece(words, unk_token='[UNK]'))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    engine.post_processor = processors.BertProcessing(('[SEP]', 2), ('[CLS]', 3))
    engine.save(str(folder / 'tokenizer.json'))
    special = dict(pad_token='[PAD]', sep_token='[SEP]', cls_token='[CLS]', unk_token='[UNK]')
    (folder / 'tokenizer_config.json').write_text(
        json.dumps(special | dict(tokenizer_class='PreTrainedTokenizerFast'))
    )
    return folder


def make(folder, context_length=6):
    return build.build('text', dict(name='pretrained', path=str(folder), context_length=context_length))


def test_t5_rows_end_in_one_end_token_and_zeros(t5):
    np.testing.assert_array_equal(make(t5)(['a red apples', '']), [[5, 3, 4, 6, 1, 0], [1, 0, 0, 0, 0, 0]])


def test_bert_rows_have_the_folders_own_ids(bert):
    np.testing.assert_array_equal(make(bert)('A red roses'), [[3, 7, 5, 9, 8, 2]])


def test_a_text_that_is_too_long_warns_and_keeps_its_end_token(t5):
    with pytest.warns(UserWarning, match='6 tokens where context_length is 4.*a red apple red a'):
        rows = make(t5, 4)('a red apple red a')
    np.testing.assert_array_equal(rows, [[5, 3, 4, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make(t5, 6)('a red apple red a')


def test_encode_has_no_special_tokens_and_decode_drops_them(t5, bert):
    for folder in (t5, bert):
        tokenizer = make(folder)
        ids = tokenizer.encode('a red apple')
        assert len(ids) == 3
        assert tokenizer.decode(tokenizer('a red apple')[0]) == tokenizer.decode(ids) == 'a red apple'


@pytest.mark.parametrize(
    ('texts', 'error'), [([], ValueError), (b'red', TypeError), ([3], TypeError), (3, TypeError)]
)
def test_what_is_no_text_is_refused(t5, texts, error):
    with pytest.raises(error, match='text|str'):
        make(t5)(texts)


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises((FileNotFoundError, ValueError), match='nowhere'):
        make(tmp_path / 'nowhere')('red')
