"""Tokenizer folders: the ids and the padding that transformers makes of them."""

import json
import re

import pytest

from ldm_jax.checkpoints.diffusers import tokenizers
from ldm_jax.text import clip
from tests.checkpoints.published_files import write

TEXTS = ('a photo of a cat', '', "A dog's LIFE, 1999", 'naïve café & 東京', 'x' * 500)


@pytest.mark.parametrize('pad_id', [49407, 0])
def test_the_tokenizer_that_transformers_loads_gives_our_ids(pad_id, tmp_path):
    transformers = pytest.importorskip('transformers')
    spec = dict(name='clip', context_length=20, pad_id=pad_id)
    for name, text in tokenizers.write(spec).items():
        (tmp_path / name).write_text(text, 'utf-8')
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 20
    ids = theirs(list(TEXTS), padding='max_length', truncation=True)['input_ids']
    with pytest.warns(UserWarning, match='Text too long'):
        ours = clip.Tokenizer(context_length=20, pad_id=pad_id)(TEXTS)
    assert ids == ours.tolist()
    assert len(theirs) == clip.VOCAB_SIZE
    assert tokenizers.read_clip(tmp_path, 20) == spec


@pytest.mark.parametrize(
    ('config', 'special', 'pad_id'),
    [
        ({}, {}, 49407),
        (dict(pad_token='<|endoftext|>'), dict(pad_token='!'), 0),
        (dict(pad_token='!', added_tokens_decoder={}), dict(pad_token='<|endoftext|>'), 0),
        ({}, dict(pad_token=dict(content='!', lstrip=False)), 0),
    ],
)
def test_padding_as_transformers_reads_it(config, special, pad_id, tmp_path):
    transformers = pytest.importorskip('transformers')
    files = tokenizers.write(dict(name='clip'))
    files['tokenizer_config.json'] = json.dumps(config)
    files['special_tokens_map.json'] = json.dumps(special)
    for name, text in files.items():
        (tmp_path / name).write_text(text, 'utf-8')
    assert tokenizers.read_clip(tmp_path, 77)['pad_id'] == pad_id
    assert transformers.CLIPTokenizer.from_pretrained(tmp_path).pad_token_id == pad_id


def test_padding_outside_of_the_vocabulary_is_an_error(tmp_path):
    write(tmp_path, {'tokenizer_config.json': dict(pad_token='<pad>')})
    with pytest.raises(
        ValueError, match=re.escape("pad_token is '<pad>', which is not in CLIP's vocabulary")
    ):
        tokenizers.read_clip(tmp_path, 77)


def test_another_bert_vocabulary_leaves_the_tokenizer_out(tmp_path):
    (tmp_path / 'vocab.txt').write_text('[PAD]\n[UNK]\n')
    assert tokenizers.read_bert(tmp_path, 77) is None
    (tmp_path / 'vocab.txt').write_text('word\n' * 30522)
    assert tokenizers.read_bert(tmp_path, 77) == dict(name='bert', context_length=77)
