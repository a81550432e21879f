"""Prompts without effect are warned of by name, and no others."""

import dataclasses
import warnings

import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.requests import silent_prompts
from ldm_jax.requests.request import Request
from tests import tiny_models
from tests.pipelines import pairs


@pytest.fixture(scope='module')
def pipeline():
    """A model whose text encoder knows all words but 'zebra'."""
    settings = tiny_models.SETTINGS['text']
    found = open_pipeline(Loaded(settings, {}, pairs.random_params(settings), ''))
    table = np.array(found.params['text_encoder']['token_embedding']['embedding'])
    table[found.tokenizers[0].encode('zebra')] = 0
    encoder = found.params['text_encoder'] | dict(token_embedding=dict(embedding=table))
    return dataclasses.replace(found, params=found.params | dict(text_encoder=encoder))


def warned(function, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        function(*args)
    return [str(each.message) for each in caught]


def test_words_that_the_text_encoder_does_not_know_are_named(pipeline):
    for request in (Request(('a red (zebra:1.1) :1.5 AND a cat',)), Request(('a',), '[zebra::3]')):
        (message,) = warned(silent_prompts.warn_of_words, request, pipeline)
        assert message.endswith("does not know them: 'zebra'.")
    assert not warned(silent_prompts.warn_of_words, Request(('a cat :1.5 AND a dog',), 'blurry'), pipeline)


def test_the_shipped_model_names_what_it_never_saw():
    pipeline = open_pipeline('emoji32')
    (message,) = warned(silent_prompts.warn_of_words, Request(('a red apple, baroque style',)), pipeline)
    assert "'baroque'" in message
    assert 'apple' not in message


@pytest.mark.parametrize(
    ('syntax', 'prompt', 'negative', 'words'),
    [
        ('a1111', '', '', ['The prompt is empty']),
        ('plain', 'a (red:1.3) cat BREAK b', '', ["plain: '(red:1.3)', 'BREAK'"]),
        ('comfyui', 'a (red:1.3) cat', '<lora:x:1>', ["comfyui: '<lora:x:1>'"]),
        ('comfyui', ' ', '[a:b:0.5]', ['The prompt is empty', "comfyui: '[a:b:0.5]'"]),
        ('a1111', 'a (red:1.3) [cat:dog:2] BREAK b AND c :0.5', '[blurry], 1:2', []),
        ('a1111', 'a <hypernet:x:1>', '', ["left out: '<hypernet:x:1>'"]),
        ('a1111', 'a clock at 12:30', '', ["'a clock at 12' ends in its weight, 30"]),
    ],
)
def test_marks_that_a_syntax_does_not_know_are_named(syntax, prompt, negative, words):
    request = knobs.make(Request, dict(prompt=(prompt,), negative_prompt=negative, prompt_syntax=syntax))
    found = warned(silent_prompts.warn_of_marks, request)
    assert len(found) == len(words)
    assert all(word in message for word, message in zip(words, found, strict=True))
