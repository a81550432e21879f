"""Every kind of conditioning is trained, exported, loaded and sampled, guided where training left something out.

A new module of ldm_jax/conditioning without a row in ROWS fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build, trees
from ldm_jax.checkpoints import store
from ldm_jax.checkpoints.loading import Loaded
from ldm_jax.conditioning import boxes
from ldm_jax.conditioning.combine import PARTS, kinds
from ldm_jax.conditioning.networks import Networks
from ldm_jax.data import pipeline as examples_of
from ldm_jax.inference.opening import open_pipeline
from ldm_jax.inference.settings import Guidance, Sampling
from ldm_jax.pipelines.class_to_image import class_to_image
from ldm_jax.pipelines.from_conditioning import from_conditioning
from ldm_jax.pipelines.layout_to_image import layout_to_image
from ldm_jax.pipelines.text_to_image import text_to_image
from ldm_jax.requests import png_settings
from ldm_jax.training import from_config
from ldm_jax.training.run import Run

NETWORK = 'tests.contracts.tiny_network'
NAMES = build.names('conditioning')
SIDE, BATCH = 8, 4
RNG = np.random.default_rng(0)
TEXT_ENCODER = dict(
    name='clip_text', context_length=8, width=8, num_layers=1, num_heads=2, projection_width=4
)
BOX_ENCODER = dict(
    name='bert', vocab_size=64, context_length=8, width=8, num_layers=1, num_heads=1, head_width=4
)
VISION = dict(
    name='clip_vision', image_size=8, patch_size=4, width=8, num_layers=1, num_heads=2, projection_width=6
)
TINY_VAE = dict(name='taesd', channels=4, num_blocks=(1, 1))
BOXES = [[(3, 0.0, 0.0, 0.5, 0.5)], [(5, 0.0, 0.0, 0.5, 0.5)], [(9, 0.2, 0.1, 1, 1)], [(3, 0.5, 0.5, 1, 1)]]


def uniform(*shape):
    return RNG.uniform(-1, 1, (BATCH, *shape)).astype(np.float32)


def labels(high, *shape):
    return RNG.integers(0, high, (BATCH, *shape)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Row:
    """How one kind is trained and sampled.

    Attributes:
        network: fields of the denoising network.
        data: what the examples have beside 'image', [BATCH, ...] each.
        given: what sampling is given; the data by default.
        fields: of the kind, beside its drop rate.
        models: further networks, trained along; pretrained: those that are not.
        settings: more of the config.
        task: a task of pipelines/ that samples the model too: (pipeline, sampling) -> images.
        same: whether training on the data has the very conditioning that sampling has (no draws of its own).
    """

    network: Mapping[str, Any]
    data: Mapping[str, np.ndarray]
    given: Mapping[str, np.ndarray] | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    models: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    task: Callable[..., np.ndarray] | None = None
    same: bool = True


TOKENIZER = dict(name='clip', context_length=8)
TEXTS = ['a red cat', 'a blue dog', 'a cross', 'a red dog']
TOKENS = build.build('text', TOKENIZER)(TEXTS)
IMAGES = uniform(SIDE, SIDE, 3)
MASKS = np.zeros((BATCH, SIDE, SIDE, 1), np.float32)
MASKS[:, 2:6, 0:4] = 1
ROWS = {
    'text': Row(
        dict(context=8),
        {'text': np.array(TEXTS)},
        {'tokens': TOKENS},
        models=dict(text_encoder=TEXT_ENCODER),
        settings=dict(tokenizer=TOKENIZER),
        task=lambda pipeline, sampling: text_to_image(pipeline, TEXTS, sampling=sampling),
    ),
    'class_label': Row(
        dict(label=11),
        {'label': labels(10)},
        task=lambda pipeline, sampling: class_to_image(pipeline, [0, 1, 8, 9], sampling=sampling),
    ),
    'sizes': Row(dict(vector=6 * 8), {'size': labels(1000, 6)}, fields=dict(width=8)),
    'vector': Row(dict(vector=5), {'vector': uniform(5)}),
    'concat': Row(dict(concat=2), {'concat': uniform(SIDE, SIDE, 2)}),
    'source': Row(
        dict(out_channels=4, concat=4),
        {'source': uniform(SIDE, SIDE, 3)},
        pretrained=dict(first_stage=TINY_VAE),
        settings=dict(scaling_factor=0.5),
    ),
    'inpainting': Row(dict(concat=4), {'mask': MASKS}, {'image': IMAGES, 'mask': MASKS}),
    'low_resolution': Row(
        dict(concat=3, label=30),
        {},
        {'image': uniform(SIDE, SIDE, 3), 'noise': uniform(SIDE, SIDE, 3), 'level': labels(20)},
        fields=dict(factor=1, max_noise_level=20),
        same=False,
    ),
    'depth': Row(dict(concat=1), {'depth': 100 * uniform(SIDE, SIDE, 1)}),
    'image_embedding': Row(
        dict(vector=12),
        {},
        {'image': IMAGES, 'noise': uniform(6), 'level': labels(900)},
        pretrained=dict(image_encoder=VISION, image_normalizer=dict(name='image_normalizer', width=6)),
        same=False,
    ),
    'boxes': Row(
        dict(context=8),
        {'boxes': np.array([boxes.tokens(each, 64, 8) for each in BOXES], np.int32)},
        models=dict(text_encoder=BOX_ENCODER),
        task=lambda pipeline, sampling: layout_to_image(pipeline, BOXES, sampling=sampling),
    ),
    'label_map': Row(
        dict(concat=2),
        {'map': labels(5, SIDE, SIDE)},
        models=dict(rescaler=dict(name='spatial_rescaler', num_stages=0, in_channels=5, out_channels=2)),
    ),
}
FAST = ('text', 'class_label', 'concat')


def each_kind(fast=FAST):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def config_of(name, drop_rate=0.5):
    row = ROWS[name]
    conditioning = {name: dict(drop_rate=drop_rate, **row.fields)}
    return dict(
        stage=dict(
            name='latent_diffusion',
            latent_size=SIDE // (2 if row.pretrained.get('first_stage') else 1),
            objective=dict(parameterization='v'),
            conditioning=conditioning,
            encode='step',
            samples=dict(count=0),
        ),
        models=dict(unet=dict(name=NETWORK, **row.network)) | dict(row.models),
        pretrained={part: dict(model='none') for part in row.pretrained},
        schedule=dict(name='scaled_linear'),
        optimizer=dict(name='adamw', lr=1e-2),
        run=dict(num_steps=2, batch_size=BATCH),
        **row.settings,
    )


def stage_of(name, **fields):
    """The stage and settings of a row, its pretrained parts random."""

    def load(model, parts):
        specs = {part: ROWS[name].pretrained[part] for part in parts}
        networks = build.parts({'models': specs})
        params = {part: trees.init(network, jax.random.key(7)) for part, network in networks.items()}
        return Loaded({'models': specs}, networks, params, '')

    config = config_of(name, **fields)
    return config, *from_config.stage(config, load)


def batch_of(name, stage):
    rows = [
        {'image': IMAGES[i], **{key: array[i] for key, array in ROWS[name].data.items()}}
        for i in range(BATCH)
    ]
    return stage.prepare(rows)


def exported(name, path, **fields):
    """Trains two steps and writes the model; what was trained and the model's settings."""
    config, stage, settings = stage_of(name, **fields)
    examples = batch_of(name, stage)
    work = from_config.work(config, stage, Run(**config['run']))
    state, step = work.init(jax.random.key(0)), jax.jit(work.step)
    batch = examples_of.stack([examples[i] for i in range(BATCH)])
    for _ in range(2):
        state, metrics = step(state, batch, jax.random.key(1))
    assert np.isfinite(metrics['loss'])

    def save(settings, params, dtype):
        store.save_model(str(path), settings, params, dtype)

    from_config.export(config, stage, settings, state.ema_params, examples, save)
    return stage


def test_every_kind_has_a_row():
    assert set(NAMES) == set(ROWS)


@pytest.mark.parametrize('name', each_kind())
def test_what_is_trained_is_exported_loaded_and_sampled(name, tmp_path):
    row = ROWS[name]
    stage = exported(name, tmp_path / 'model')
    pipeline = open_pipeline(str(tmp_path / 'model'), devices=jax.devices()[:1])
    found = pipeline.parts.conditioning
    assert found == tuple(kinds(stage.conditioning).items())
    given = {name: row.data if row.given is None else row.given}

    def sample(guidance_scale, given=given):
        sampling = Sampling('ddim', num_steps=2, guidance=Guidance(guidance_scale))
        return from_conditioning(pipeline, given, seed=0, sampling=sampling)

    plain, guided = sample(None), sample(3.0)
    assert plain.shape == (BATCH, SIDE, SIDE, 3)
    assert np.isfinite(guided).all()
    np.testing.assert_allclose(sample(1.0), plain, atol=1e-4)
    assert np.abs(guided - plain).max() > 1e-4  # unconditional is something else
    turned = {key: np.roll(array, 1, axis=0) for key, array in given[name].items()}
    assert np.abs(sample(None, {name: turned}) - plain).max() > 1e-4  # the network heeds it
    if row.task is not None:
        images = row.task(pipeline, Sampling('ddim', num_steps=2, guidance=Guidance(3.0)))
        assert images.shape == (BATCH, SIDE, SIDE, 3)
        assert np.isfinite(images).all()


@pytest.mark.slow
@pytest.mark.parametrize('name', each_kind(NAMES))
def test_sampling_has_the_conditioning_that_training_had(name):
    row, drop_rate = ROWS[name], 0.5
    _, stage, _ = stage_of(name)
    specs = {part: module for part, module in stage._modules.items()}
    params = {part: trees.init(module, jax.random.key(3)) for part, module in specs.items() if part != 'unet'}
    networks = Networks(specs, params, 0.5, stage.schedule, stage._tokenizers)
    kind = kinds({name: dict(drop_rate=drop_rate, **row.fields)})[name]
    batch = {'image': jnp.asarray(IMAGES), **{key: a for key, a in row.data.items() if key != 'text'}}
    batch |= {'tokens': TOKENS} if name == 'text' else {}
    keys = jax.random.split(jax.random.key(0), BATCH)
    given = batch if row.given is None else row.given

    @jax.jit
    def both(batch, given):
        drop = jnp.ones(BATCH, bool)
        trained = [kind.train(networks, batch, drop, keys), kind.train(networks, batch, ~drop, keys)]
        return trained, kind.sample(networks, given)

    trained, sampled = both(batch, given)
    for one, other, exact in zip(trained, sampled, (True, row.same), strict=True):
        for part in PARTS:
            a, b = getattr(one, part), getattr(other, part)
            assert (a is None) == (b is None) == (part not in kind.parts(networks)), part
            if a is not None and (exact and (row.same or part != 'label')):
                np.testing.assert_allclose(a, b, atol=1e-5)
            elif a is not None:
                assert a.shape == b.shape


@pytest.mark.slow
def test_without_a_drop_rate_there_is_nothing_to_guide_away_from(tmp_path):
    exported('class_label', tmp_path / 'model', drop_rate=0.0)
    pipeline = open_pipeline(str(tmp_path / 'model'), devices=jax.devices()[:1])
    assert (
        class_to_image(pipeline, [10], sampling=Sampling(num_steps=1, guidance=Guidance(None))).shape[0] == 1
    )
    for sample in (
        lambda sampling: class_to_image(pipeline, [0], sampling=sampling),
        lambda sampling: from_conditioning(
            pipeline, {'class_label': {'label': np.zeros(1, np.int32)}}, sampling=sampling
        ),
    ):
        with pytest.raises(ValueError, match='nothing to guide away from'):
            sample(Sampling(num_steps=1, guidance=Guidance(3.0)))
    with pytest.raises(ValueError, match=r"needs \['label'\]; got \[\]"):
        from_conditioning(pipeline, {})


TABLES = dict(
    unet=dict(
        in_channels=3, channels=8, channel_mult=(1,), num_res_blocks=1, depth=(0,), mid_depth=0, num_heads=1,
        num_groups=4,
    ),
    dit=dict(width=8, depth=1, num_heads=2),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', TABLES)
def test_a_network_with_a_table_of_ten_classes_and_none_is_sampled_from_the_command_line(
    name, tmp_path, sample, monkeypatch
):
    """Not ImageNet's thousand, and no class embedder: what the last class means is in the settings."""
    network = dict(name=name, out_channels=3, num_classes=11, **TABLES[name])
    row = dataclasses.replace(ROWS['class_label'], models=dict(unet=network))
    monkeypatch.setitem(ROWS, 'class_label', row)
    exported('class_label', tmp_path / 'model')
    line = dict(model=str(tmp_path / 'model'), labels=(0, 9), num_steps=2, num_images=1, out=tmp_path / 'out')
    report = sample(**line)
    assert report['task'] == 'class_to_image'
    assert png_settings.read_file(report['images'][0]['path'])['CFG scale'] == '3.0'
    assert sample(fails=True, **line | dict(labels=(10,)))
