"""Tokenizer folders: CLIP's are written whole, from the vocabulary that this package ships.

The vocabulary of BERT is not shipped: a folder for it has all but vocab.txt.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints import default_tokenizers
from ldm_jax.checkpoints.diffusers.fields import Spec, load_json, unsupported
from ldm_jax.text import bert, clip


def read_clip(folder: pathlib.Path, context_length: int) -> Spec:
    """The spec of a CLIP tokenizer, whose padding is what the families differ in.

    Args:
        folder: with tokenizer_config.json, special_tokens_map.json or neither.
        context_length: of the text encoder.

    Raises ValueError for a padding token that is not in the vocabulary.
    """
    config, special = (_json(folder / name) for name in ('tokenizer_config.json', 'special_tokens_map.json'))
    # Stable Diffusion 2 has another token in each file. As in transformers, the map has the last word,
    # except beside a table of added tokens, with which versions since 4.34 write the whole truth into one.
    mapped = 'added_tokens_decoder' not in config and 'pad_token' in special
    said, where = (special, 'special_tokens_map.json') if mapped else (config, 'tokenizer_config.json')
    pad = said.get('pad_token', clip.END)
    pad = pad.get('content') if isinstance(pad, Mapping) else pad
    vocab, _ = clip.vocabulary()
    if not isinstance(pad, str) or pad not in vocab:
        raise ValueError(
            f"{folder / where}: pad_token is {str(pad)[:80]!r}, which is not in CLIP's vocabulary."
        )
    return dict(name='clip', context_length=context_length, pad_id=vocab[pad])


def read_bert(folder: pathlib.Path, context_length: int) -> Spec | None:
    """The spec of latent diffusion's tokenizer; None where the vocabulary is not that of bert-base-uncased."""
    words = folder / 'vocab.txt'
    if words.is_file() and len(words.read_text('utf-8').splitlines()) != default_tokenizers.BERT_VOCAB_SIZE:
        return None
    return dict(name='bert', context_length=context_length)


def write_clip(spec: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of a CLIP tokenizer's folder.

    With padding 0 the pad token is '!', as in the published folders of OpenCLIP's family. transformers takes a
    '!' in a text for padding then, id 0, where CLIP itself has the one that ends a word, 256.
    """
    vocab, merges = clip.vocabulary()
    pad_id = spec.get('pad_id', clip.END_ID)
    pad = next(token for token, i in vocab.items() if i == pad_id)
    tokens = dict(bos_token=clip.START, eos_token=clip.END, pad_token=pad, unk_token=clip.END)
    config = dict(
        tokens,
        add_prefix_space=False,
        do_lower_case=True,
        errors='replace',
        model_max_length=spec.get('context_length', 77),
        tokenizer_class='CLIPTokenizer',
    )
    return {
        'vocab.json': json.dumps(vocab, ensure_ascii=False),
        'merges.txt': '\n'.join(['#version: 0.2', *(f'{a} {b}' for a, b in merges), '']),
        'tokenizer_config.json': text(config),
        'special_tokens_map.json': text(tokens),
    }


def write_bert(spec: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of a BERT tokenizer's folder, with the vocabulary where the spec names its file."""
    tokens = dict(
        cls_token=bert.START,
        mask_token=bert.MASK,
        pad_token=bert.PAD,
        sep_token=bert.END,
        unk_token=bert.UNKNOWN,
    )
    config = dict(
        tokens,
        do_lower_case=True,
        model_max_length=spec.get('context_length', 77),
        tokenizer_class='BertTokenizer',
    )
    files = {'tokenizer_config.json': text(config), 'special_tokens_map.json': text(tokens)}
    given = pathlib.Path(spec.get('vocab', '')).expanduser()
    for path in (given, given / 'vocab.txt'):
        if path.name == 'vocab.txt' and path.is_file():
            files['vocab.txt'] = path.read_text('utf-8')
    return files


def write(spec: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text of a tokenizer's folder; ValueError for one that transformers does not have."""
    writers = {'clip': write_clip, 'bert': write_bert}
    if spec['name'] not in writers:
        raise unsupported('tokenizer.name', spec['name'], f'have {sorted(writers)}')
    return writers[spec['name']](spec)


def text(config: Mapping[str, Any]) -> str:
    """JSON as the libraries write it."""
    return json.dumps(config, indent=2, sort_keys=True) + '\n'


def _json(path: pathlib.Path) -> dict[str, Any]:
    return load_json(path) if path.is_file() else {}
