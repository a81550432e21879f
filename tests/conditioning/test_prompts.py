"""Prompts as vectors: equal to the original code's on the same CLIP; padding is not seen; nothing is compiled anew."""

import copy
import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.conditioning.prompts import timetable
from ldm_jax.conditioning.weighted import weigh
from ldm_jax.diffusion.changing import Changing, at
from ldm_jax.inference.settings import Sampling
from ldm_jax.pipelines import long_prompts
from ldm_jax.pipelines.prompts import prompt_conds
from ldm_jax.text.prompts.schedule import Entry
from ldm_jax.text.prompts.words import Word
from tests import oracles, tiny_models
from tests.pipelines import pairs
from tests.text.prompts.cases import sections

EXPECTED = np.load(pathlib.Path(__file__).parent / 'fixtures' / 'prompts.npz')
SIZE = (16, 16)
LONG = ', '.join(f'a (red:1.2) cat and {i} dogs' for i in range(12))
WEIGHTS = 'a (red:1.3) cat, [small] dog'
# name -> the prompt, settings, and the original's entry at each evaluation from 0 on
CASES = {
    'weights': (WEIGHTS, {}, [0]),
    'no_norm': (WEIGHTS, dict(emphasis='no_norm'), [0]),
    'ignore': (WEIGHTS, dict(emphasis='ignore'), [0]),
    'none': (WEIGHTS, dict(emphasis='none'), [0]),
    'long': (LONG, {}, [0]),
    'break': ('a (cat:0.5) BREAK (two dogs)', {}, [0]),
    'editing': ('a [cat:(dog:1.4) BREAK b:3]', dict(num_steps=10), [0, 0, 0, 0, 1, 1]),
    'turns': ('a [(cat:1.5)|dog|(fox:0.7)]', dict(num_steps=5), [0, 0, 1, 2, 3, 4]),
    'word': ('a (moss:1.5) house, moss', {}, [0]),
    'comfyui': ('a ((red:1.3) cat:0.6), (small:-0.5) dog', dict(prompt_syntax='comfyui'), [0]),
    'comfyui_long': (LONG, dict(prompt_syntax='comfyui'), [0]),
}


@pytest.fixture(scope='module', params=['text', pytest.param('sizes', marks=pytest.mark.slow)])
def model(request):
    """(name, a pipeline in float64 with the learned word 'moss')."""
    settings = copy.deepcopy(tiny_models.SETTINGS[request.param])
    settings['tokenizer']['pad_id'] = 49407
    generator = np.random.default_rng(5)
    narrow, wide = (generator.standard_normal((2, width)).astype(np.float32) for width in (8, 12))
    vectors = {'text_encoder': narrow} | ({'text_encoder_2': wide} if request.param == 'sizes' else {})
    pipeline = pairs.ours(settings, pairs.random_params(settings), dtype='float64')
    return request.param, dataclasses.replace(pipeline, words=dict(moss=Word(vectors)))


@pytest.fixture(scope='module')
def single(model):
    """The same model in float32."""
    _, pipeline = model
    settings = copy.deepcopy(tiny_models.SETTINGS[model[0]])
    return dataclasses.replace(pairs.ours(settings, pipeline.params), words=pipeline.words)


def conds(pipeline, prompts, negative='', **options):
    sampling = knobs.make(Sampling, dict(num_steps=4, guidance_scale=2.0) | options)
    return prompt_conds(pipeline, sampling, prompts, negative, SIZE)[0]


FAST = ('editing', 'comfyui', 'word')
ROWS = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize('name', ROWS)
def test_vectors_are_the_originals(model, name):
    kind, pipeline = model
    prompt, options, entries = CASES[name]
    with oracles.float64():
        uncond, cond = conds(pipeline, [prompt], **options)
        assert isinstance(cond, Changing) == (len(entries) > 1)
        expected = EXPECTED[f'{kind}/{name}']
        for evaluation, entry in enumerate(entries):
            now = at(cond, evaluation)
            seen = slice(None) if now.context_mask is None else np.asarray(now.context_mask[0])
            np.testing.assert_allclose(now.context[0, seen][::3], expected[entry], rtol=1e-6, atol=1e-6)
            if kind == 'sizes':
                pooled = EXPECTED[f'{kind}/{name}/pooled'][entry]
                np.testing.assert_allclose(now.vector[0, : len(pooled)], pooled, rtol=1e-6, atol=1e-6)
    # SDXL's empty negative prompt is zeros, but not in ComfyUI; the encoders never saw that.
    zeros = kind == 'sizes' and not name.startswith('comfyui')
    assert np.any(np.asarray(at(uncond, 0).context[0, :77])) != zeros


@pytest.mark.slow
def test_prompts_beside_each_other_do_not_matter(single):
    prompts = ['a red cat', 'a [cat|dog|fox|hen|cow]', LONG, 'a (moss:1.5) AND (b) :0.5']
    together = conds(single, prompts, 'blurry [x:y:2]')
    for i, prompt in enumerate(prompts):
        alone = conds(single, [prompt], 'blurry [x:y:2]')
        for e in range(5):
            for ours, theirs in zip(alone, together, strict=False):
                ours, theirs = at(ours, e), at(theirs, e)
                rows = ours.context.shape[1] if ours.context_mask is None else ours.context_mask[0].sum()
                if theirs.context_mask is not None:
                    assert theirs.context_mask[i].sum() == rows
                np.testing.assert_allclose(
                    ours.context[0, :rows], theirs.context[i, :rows], rtol=1e-5, atol=2e-6
                )


@pytest.mark.slow
def test_padding_is_not_seen(single):
    """One evaluation of both, padded and masked, against each at its own length."""
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 4)).astype(np.float32)
    network = single.parts.network(single.params)
    for most, prompt in ((2, LONG), (4, ' BREAK '.join('abcd')), (8, ' BREAK '.join('abcde'))):
        pair = conds(single, [prompt], 'blurry (x:1.2)')
        assert pair[0].context.shape[1] == 77 * most
        found = jax.jit(network)(
            np.concatenate([x, x]), np.float32(500), jax.tree.map(lambda *a: np.concatenate(a), *pair)
        )
        for i, cond in enumerate(pair):
            rows = cond.context_mask[0].sum()
            own = dataclasses.replace(cond, context=cond.context[:, :rows], context_mask=None)
            expected = jax.jit(network)(x, np.float32(500), own)
            np.testing.assert_allclose(found[i], expected[0], rtol=1e-5, atol=1e-6)


def test_ways_to_pad_are_the_web_uis():
    for case in sections()['a1111_pad']:
        empty, cond, uncond = (np.array(case[name]) for name in ('empty', 'cond', 'uncond'))
        for padding, name in (('empty', 'pad'), ('last', 'pad_v0')):
            found = long_prompts.equalized([uncond, cond], guided=True, padding=padding, empty=empty[0])
            for ours, theirs in zip(found[::-1], case[name], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    case = sections()['a1111_stack']
    parts = [np.array([each]) for each in case['conds']]
    found = long_prompts.equalized(parts, guided=False, padding='masked', empty=None)
    np.testing.assert_array_equal(np.concatenate(found), case['out'])


def test_a_prompt_of_too_many_chunks_is_refused(model):
    with pytest.raises(ValueError, match='prompt of 33 chunks is too long: 32'):
        conds(model[1], [' BREAK '.join('a' * 33)])


def test_weights_change_vectors_as_the_originals_do():
    case = sections()['emphasis']
    z, weights, empty = (np.array(case[name]) for name in ('z', 'weights', 'z_empty'))

    def weighed(z, weights, restore=False, empty=np.zeros(())):  # noqa: B008
        """One image with so many variants of one chunk."""
        counts, restored = np.ones((1, len(z))), np.array([restore])
        return weigh(z[None, :, None], weights[None, :, None], counts, restored, empty)[0, :, 0]

    with oracles.float64():
        together = weighed(z, weights, restore=True)
        alone = [weighed(z[i : i + 1], weights[i : i + 1], restore=True)[0] for i in range(2)]
        found = {
            'a1111_original_as_one_batch': together,
            'a1111_original_each_alone': np.stack(alone),
            'a1111_no_norm': weighed(z, weights),
            'a1111_ignore': weighed(z, np.ones_like(weights)),
            'comfy_two_sections': weighed(z, weights, empty=empty),
        }
    for name, array in found.items():
        np.testing.assert_allclose(array, case[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_entries_hold_as_long_as_in_the_web_ui():
    for case in sections()['a1111_lookup']:
        texts = [str(end) for end in case['ends']]
        entries = [Entry(end, text) for end, text in zip(case['ends'], texts, strict=True)]
        assert timetable(entries, texts, len(case['steps'])).tolist() == case['entry']
