"""The latent diffusion stage: batches of either kind, conditioning, memory, what goes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.models import class_embedder, clip_text, unet, vae, vq
from ldm_jax.schedules import scaled_linear, zero_terminal
from ldm_jax.text import clip
from ldm_jax.training import ema, optimizer
from ldm_jax.training import state as train_state
from ldm_jax.training import step as train_step
from ldm_jax.training.stages import latent_diffusion
from ldm_jax.training.state import join
from ldm_jax.types import Cond

UNET = dict(channels=8, channel_mult=(1,), num_res_blocks=1, depth=(0,), num_heads=2, num_groups=4)
FIRST_STAGE = dict(channels=8, channel_mult=(1, 1), num_res_blocks=1, num_groups=4, mid_attention=False)
TEXT_ENCODER = clip_text.Model(context_length=8, width=8, num_layers=1, num_heads=2)
TOKENIZER = clip.Tokenizer(context_length=8)
ROWS = [
    {
        'image': np.random.default_rng(i).integers(0, 256, (16, 16, 3)).astype(np.uint8),
        'text': text,
        'label': i,
    }
    for i, text in enumerate(['a red circle', 'a blue square', 'a cross'])
]
KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def frozen():
    parts = {'first_stage': vae.Model(**FIRST_STAGE), 'text_encoder': TEXT_ENCODER}
    return {part: trees.init(module, KEY) for part, module in parts.items()}


def stage(frozen, **fields):
    settings = dict(
        unet=unet.Model(context_width=8, **UNET),
        first_stage=vae.Model(**FIRST_STAGE),
        text_encoder=TEXT_ENCODER,
        tokenizer=TOKENIZER,
        frozen=frozen,
        schedule=scaled_linear.Schedule(),
        objective=dict(parameterization='v'),
        conditioning=dict(text=dict(drop_rate=0.3)),
        scaling_factor=0.7,
        latent_size=8,
    )
    return latent_diffusion.Stage(**(settings | fields))


def bare(**fields):
    """Unconditional, on latents that come with the data."""
    nothing = dict(first_stage=None, text_encoder=None, tokenizer=None, conditioning={})
    return stage({}, **(nothing | dict(unet=unet.Model(**UNET), scaling_factor=1.0) | fields))


def params_of(made):
    """Trained and frozen parameters; layers that start at zero too are random, so that all matter to the loss."""

    def random(leaf):
        return leaf if leaf.ndim < 2 or leaf.any() else 0.1 * jax.random.normal(KEY, leaf.shape)

    return join(jax.tree.map(random, made.init(KEY)), made.frozen)


def batch_of(made):
    return pipeline.stack([made.prepare(ROWS)[i] for i in range(len(ROWS))])


def compiled_loss(made):
    def value(params, batch, key):
        return made.loss(params, batch, made.draw(key, batch))

    return jax.jit(value)


@pytest.mark.slow
def test_encoding_before_and_in_the_step_are_one_loss(frozen):
    losses = {}
    for encode in ('memory', 'step'):
        made = stage(frozen, encode=encode)
        batch = batch_of(made)
        losses[encode], found = compiled_loss(made)(params_of(made), batch, KEY)
        assert batch.keys() == ({'moments', 'context'} if encode == 'memory' else {'image', 'tokens'})
    np.testing.assert_allclose(losses['memory'], losses['step'], rtol=1e-4)
    assert found['loss_t'].count.sum() == len(ROWS)


def test_the_loss_is_that_of_the_formula(frozen):
    made = stage(frozen, objective=dict(parameterization='v', weighting='min_snr'))
    params, batch = params_of(made), batch_of(made)
    draws = made.draw(KEY, batch)
    draws = draws.replace(drop={'text': jnp.array([False, True, False])})
    value, found = jax.jit(made.loss)(params, batch, draws)

    mean, logvar = np.split(batch['moments'], 2, axis=-1)
    x0 = 0.7 * (mean + np.exp(0.5 * logvar) * np.asarray(draws.posterior))
    level = made.schedule.level(draws.noise.t)
    alpha, sigma = (np.asarray(a)[:, None, None, None] for a in (level.alpha, level.sigma))
    eps = np.asarray(draws.noise.eps)
    context = batch['context'].copy()
    context[1] = jax.jit(TEXT_ENCODER.apply)({'params': frozen['text_encoder']}, TOKENIZER('')).context[0]
    out = jax.jit(made.unet.apply)(
        {'params': params['unet']}, alpha * x0 + sigma * eps, draws.noise.t, Cond(context=context)
    )
    errors = np.mean((out - (alpha * eps - sigma * x0)) ** 2, axis=(1, 2, 3))
    snr = (alpha / sigma)[:, 0, 0, 0] ** 2
    expected = np.mean(np.minimum(snr, 5) / (snr + 1) * errors)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(found['loss_t'].total.sum(), errors.sum(), rtol=1e-4)  # unweighted


def test_kinds_are_dropped_each_by_a_draw_of_its_own(frozen):
    kinds = dict(text=dict(drop_rate=0.5), sizes=dict(drop_rate=0.2), vector={})
    network = unet.Model(context_width=8, vector_width=9, **UNET)
    made = stage(frozen, unet=network, conditioning=kinds, encode='step')
    batch = {'moments': jnp.zeros((4000, 8, 8, 8))}
    drop = {kind: np.asarray(values) for kind, values in made.draw(KEY, batch).drop.items()}
    np.testing.assert_allclose([drop[kind].mean() for kind in kinds], [0.5, 0.2, 0], atol=0.03)
    np.testing.assert_allclose((drop['text'] & drop['sizes']).mean(), 0.1, atol=0.03)


@pytest.mark.slow
def test_fine_tuning_with_more_channels_starts_as_the_original(frozen):
    original = stage(frozen)
    params = params_of(original)
    wider = stage(
        frozen,
        unet=unet.Model(context_width=8, **UNET | dict(in_channels=9)),
        conditioning=dict(text=dict(drop_rate=0.3), inpainting={}),
        warm_start={'unet': params['unet']},
        encode='step',
    )
    batch = batch_of(wider)
    draws = wider.draw(KEY, batch)
    expected, _ = jax.jit(original.loss)(params, batch, draws)
    found, _ = jax.jit(wider.loss)(join(wider.init(KEY), frozen), batch, draws)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_importance_sampling_goes_through_whole_steps():
    made = bare(
        objective=dict(parameterization='eps', times=dict(name='importance', history=2)),
        schedule=scaled_linear.Schedule(num_train_steps=4),
    )
    tx = optimizer.optimizer(50, 8, lr=1e-3)
    decays = {'main': ema.named('constant')}
    state = train_state.of(made, KEY, tx, decays)
    step = jax.jit(train_step.of(made, tx, decays, accumulate=2))
    batch = {'latents': jax.random.normal(KEY, (8, 8, 8, 4))}
    for _ in range(6):
        state, found = step(state, batch, KEY)
    assert int(state.memory.counts.sum()) == 6 * 8
    assert (state.memory.losses > 0).all()
    p = made._objective.times.probabilities(state.memory)
    assert np.ptp(p) > 0.01  # no longer uniform
    assert found['loss_t'].shape == found['loss_t_count'].shape == (10,)
    assert found['loss_t_count'].sum() == 8


@pytest.mark.slow
def test_a_class_conditional_model_of_vq_latents_learns_its_embedder():
    first_stage = vq.Model(num_codes=8, z_channels=4, **FIRST_STAGE)
    made = stage(
        {'first_stage': trees.init(first_stage, KEY)},
        unet=unet.Model(context_width=6, **UNET),
        first_stage=first_stage,
        text_encoder=None,
        tokenizer=None,
        class_embedder=class_embedder.Model(num_classes=4, width=6),
        conditioning=dict(class_label=dict(drop_rate=0.2)),
        schedule=zero_terminal.Schedule(),
        scaling_factor=1.0,
    )
    batch = batch_of(made)
    assert batch.keys() == {'latents', 'label'}
    tx = optimizer.optimizer(60, 3, lr=3e-3, curve='constant')
    decays = {'main': ema.named(dict(name='constant', decay=0.9))}
    state = train_state.of(made, KEY, tx, decays)
    before = np.asarray(state.params['class_embedder']['embedding']['embedding'])
    step = jax.jit(train_step.of(made, tx, decays))
    losses = []
    for _ in range(60):
        state, found = step(state, batch, KEY)
        losses.append(float(found['loss']))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    moved = np.abs(np.asarray(state.params['class_embedder']['embedding']['embedding']) - before).max(axis=1)
    assert (moved > 0).all()  # the class that is none too
    rows = jax.jit(made.image)(state.ema_params, batch, made.draw(KEY, batch))
    assert rows.shape == (6, 3, 16, 16, 3)
    assert np.isfinite(rows).all()
    settings, parts = made.export(state.ema_params, [batch])
    assert parts.keys() == {'unet', 'first_stage', 'class_embedder'}
    assert settings['parameterization'] == 'v'
    assert settings['conditioning'] == dict(class_label=dict(name='class_label', drop_rate=0.2))


@pytest.mark.slow
def test_pixels_are_diffused_without_a_first_stage():
    made = bare(unet=unet.Model(**UNET | dict(in_channels=3, out_channels=3)), encode='step')
    batch = batch_of(made)
    draws = made.draw(KEY, batch)
    value, _ = jax.jit(made.loss)(made.init(KEY), batch, draws)
    level = made.schedule.level(draws.noise.t)
    alpha, sigma = (np.asarray(a)[:, None, None, None] for a in (level.alpha, level.sigma))
    target = alpha * draws.noise.eps - sigma * (batch['image'] / 127.5 - 1)
    np.testing.assert_allclose(value, np.mean(np.square(target)), rtol=1e-4)  # the last layer starts at zero


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        (dict(conditioning=dict(txt={})), "No conditioning module 'txt'.*Did you mean 'text'"),
        (dict(conditioning=dict(text=dict(drop=0.1))), "No field of conditioning/text 'drop'"),
        (dict(conditioning=dict(text=dict(drop_rate=1.0))), 'text.drop_rate.*1.0'),
        (dict(encode='lazily'), "'lazily'"),
        (
            dict(unet=unet.Model(**UNET | dict(in_channels=9)), conditioning=dict(inpainting={})),
            "set encode='step'",
        ),
        (dict(conditioning={}), r"conditioned on \['context'\].*fills nothing"),
        (dict(objective=dict(parameterization='w')), "No parameterization 'w'"),
        (dict(schedule=zero_terminal.Schedule(), objective=dict(parameterization='eps')), 'not finite'),
        (dict(frozen={}), "text_encoder.*trained here.*encode='step'"),
        (dict(frozen={}, encode='step'), 'pretrained.first_stage'),
        (dict(samples=dict(steps=3)), "No field of samples 'steps'"),
        (dict(samples=dict(prompts=['x']), text_encoder=None, tokenizer=None), 'prompts need a text encoder'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, words, frozen):
    fields = dict(fields)
    with pytest.raises(ValueError, match=words):
        stage(fields.pop('frozen', frozen), **fields)


@pytest.mark.parametrize(
    ('fields', 'row', 'words'),
    [
        (
            dict(unet=unet.Model(vector_width=6, **UNET), conditioning=dict(sizes={})),
            ROWS[0],
            r"'sizes' needs \['size'\].*\['image', 'label', 'text'\]",
        ),
        ({}, {'text': 'a cat'}, "one of .*'image'"),
        (
            dict(text_encoder=None, tokenizer=None),
            {'latents': np.zeros((8, 8, 4)), 'context': np.zeros((8, 8))},
            "null='zeros'",
        ),
    ],
)
def test_data_that_lack_something_are_refused_before_training(fields, row, words, frozen):
    with pytest.raises(ValueError, match=words):
        stage(frozen, **fields).prepare([row])


@pytest.mark.slow
def test_samples_are_given_examples_or_prompts_and_do_not_change_with_the_batch(frozen):
    made = stage(frozen, samples=dict(count=2, num_steps=2, prompts=['a red circle', 'a cross']))
    params, batch = params_of(made), batch_of(made)
    prompted = jax.jit(lambda batch: made.sample(params, batch, KEY)['samples'])
    found = prompted(batch)
    assert found.shape == (1, 2, 16, 16, 3)
    other = jax.tree.map(lambda a: a[::-1], batch)
    np.testing.assert_array_equal(prompted(other), found)
    told = stage(frozen, samples=dict(count=2, num_steps=2))
    by_examples = jax.jit(lambda batch: told.sample(params, batch, KEY)['samples'])
    rows = jax.tree.map(lambda a: a[np.array([0, 2])], batch)  # whose texts are the prompts
    np.testing.assert_allclose(by_examples(rows), found, atol=1e-4)
    assert stage(frozen, samples=dict(count=0)).sample(params, batch, KEY) == {}


class Encoded:
    """Latents of two shapes with embedded texts, as data/latents.py gives them."""

    null = {'context': np.full((8, 8), 0.5, np.float32)}  # noqa: RUF012
    buckets = (range(4), range(4, 8))

    def __len__(self):
        return 8

    def __getitem__(self, i):
        shape = (8, 4, 4) if i < 4 else (4, 8, 4)
        rng = np.random.default_rng(i)
        return {
            'latents': rng.standard_normal(shape, np.float32),
            'context': rng.standard_normal((8, 8), np.float32),
        }


@pytest.mark.slow
def test_embedded_texts_are_dropped_for_the_embedding_of_the_empty_one():
    source = Encoded()
    made = stage({}, first_stage=None, text_encoder=None, tokenizer=None, null=source.null)
    examples = made.prepare(source)
    assert pipeline.buckets(examples) == source.buckets
    batch = pipeline.stack([examples[i] for i in range(4)])
    params, draws = params_of(made), made.draw(KEY, batch)
    dropped = draws.replace(drop={'text': jnp.array([True, False, True, False])})
    kept = draws.replace(drop={'text': jnp.zeros(4, bool)})
    told = dict(
        batch, context=np.where([[[1]], [[0]], [[1]], [[0]]], 0.5, batch['context']).astype(np.float32)
    )
    loss = jax.jit(made.loss)
    np.testing.assert_allclose(loss(params, batch, dropped)[0], loss(params, told, kept)[0], rtol=1e-6)
    assert abs(loss(params, batch, kept)[0] - loss(params, batch, dropped)[0]) > 1e-5


def test_buckets_are_not_encoded_into_memory(frozen):
    class Buckets(list):
        buckets = (range(2), range(2, 3))

    with pytest.raises(ValueError, match="encode='step'"):
        stage(frozen).prepare(Buckets(ROWS))


class Captioned(list):
    """Examples with two captions each."""

    def captions(self, i):
        return self[i]['text'], f'{i} things'


def test_several_captions_are_not_encoded_into_memory(frozen):
    with pytest.raises(ValueError, match="3 have several, the first 0: set stage.encode='step'"):
        stage(frozen).prepare(Captioned(ROWS))
    stage(frozen, encode='step').prepare(Captioned(ROWS))


def test_words_that_the_frozen_text_encoder_does_not_know_are_named(frozen, caplog):
    table = np.zeros((clip.VOCAB_SIZE, 8), np.float32)
    table[TOKENIZER.encode('a red circle things 0 1 2')] = 1
    known = {**frozen['text_encoder'], 'token_embedding': {'embedding': table}}
    stage({**frozen, 'text_encoder': known}, encode='step').prepare(Captioned(ROWS))
    assert (
        '3 words of the captions are unknown to the frozen text_encoder and cannot be learned' in caplog.text
    )
    assert "'blue', 'square', 'cross'." in caplog.text
    caplog.clear()
    stage(frozen, encode='step').prepare(Captioned(ROWS))
    stage({'first_stage': frozen['first_stage']}, encode='step', warm_start={'text_encoder': known}).prepare(
        ROWS
    )
    assert caplog.text == ''


def test_a_corrupt_first_example_does_not_stop_training(frozen):
    class Damaged(list):
        def __getitem__(self, i):
            if i == 0:
                raise Corrupt('a.avif', 'cut off')
            return super().__getitem__(i)

    examples = stage(frozen, encode='step').prepare(Damaged(ROWS))
    assert examples[1].keys() == {'image', 'tokens'}


def test_precomputed_examples_stay_as_they_are(frozen):
    made = stage(frozen)
    row = {'moments': np.zeros((8, 8, 8)), 'context': np.zeros((8, 8)), 'name': 'x'}
    assert made.prepare([row])[0].keys() == {'moments', 'context'}
