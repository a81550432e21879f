"""Every stage's job on one device, under pmap and on a mesh that cuts its parameters."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ldm_jax import trees
from ldm_jax.models import clip_text, clip_vision, discriminator, unet
from ldm_jax.schedules import scaled_linear
from ldm_jax.text import clip
from ldm_jax.training import ema, job
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.parallel.backend import Parallel
from ldm_jax.training.stages import contrastive, first_stage, latent_diffusion
from tests.training import tiny_stages

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
B = 16
TOWER = dict(width=8, num_layers=1, num_heads=2, projection_width=8)
SPREADS = [Parallel('pmap'), Parallel('mesh', data=2, fsdp=4)]


def contrastive_stage():
    stage = contrastive.Stage(
        clip_text.Model(context_length=8, **TOWER),
        clip_vision.Model(image_size=16, patch_size=8, **TOWER),
        clip.Tokenizer(context_length=8),
    )
    tokens = np.asarray(stage.tokenizer([f'number {i}' for i in range(B)]))
    return stage, {'image': RNG.uniform(-1, 1, (B, 16, 16, 3)).astype(np.float32), 'tokens': tokens}


def latent_stage():
    stage = latent_diffusion.Stage(
        unet.Model(
            channels=8,
            channel_mult=(1,),
            num_res_blocks=1,
            depth=(1,),
            num_heads=2,
            num_groups=4,
            context_width=8,
        ),
        scaled_linear.Schedule(),
        objective=dict(parameterization='v'),
        latent_size=8,
        conditioning=dict(text=dict(drop_rate=0.5, null='zeros')),
    )
    shapes = {'moments': (B, 8, 8, 8), 'context': (B, 4, 8)}
    return stage, {name: RNG.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def first_stage_of(image_size=16):
    stage = first_stage.Stage(
        tiny_stages.Kl(),
        image_size,
        perceptual_weight=0.0,
        discriminator=discriminator.Model(channels=4, num_layers=1),
    )
    return stage, {'image': RNG.uniform(-1, 1, (B, image_size, image_size, 3)).astype(np.float32)}


STAGES = {'contrastive': contrastive_stage, 'latent_diffusion': latent_stage, 'first_stage': first_stage_of}


def trained(work, batch, settings, steps=3):
    spread = parallel.backend(settings, B, work.axes() if settings.cuts else {})
    state = spread.init(work.init, KEY)
    cut = [leaf.sharding.spec for leaf in jax.tree.leaves(state) if settings.cuts]
    placed = spread.shard(batch, B)
    lowered, _ = spread.traced(work.step, state, placed, KEY)
    compiled = lowered.compile()
    for _ in range(steps):
        state, metrics = compiled(state, placed, KEY)
    metrics = jax.tree.map(np.asarray, spread.metrics(metrics))
    return jax.tree.map(np.asarray, spread.whole(state)), metrics, cut


@pytest.mark.slow
@pytest.mark.parametrize('name', STAGES)
def test_a_stage_trains_the_same_however_it_is_spread(name):
    stage, batch = STAGES[name]()
    tx = optax.sgd(0.01)
    decays = {ema.MAIN: ema.named(dict(name='constant', decay=0.9))}
    adversary = tx if name == 'first_stage' else None
    work = job.of_stage(stage, tx, decays, discriminator_tx=adversary)
    alone, expected, _ = trained(work, batch, Parallel())
    before = work.init(KEY)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), alone.params, jax.device_get(before.params))
    assert max(jax.tree.leaves(moved)) > 1e-4
    for settings in SPREADS:
        state, metrics, cut = trained(work, batch, settings)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), state, alone)
        for key, value in expected.items():
            np.testing.assert_allclose(metrics[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
        if settings.cuts:
            assert sum('fsdp' in str(spec) for spec in cut) > 3
            assert P('fsdp', 'tensor') in cut or P(None, None, 'fsdp', 'tensor') in cut


@pytest.mark.parametrize('name', STAGES)
def test_axes_name_every_parameter_of_a_stage(name):
    stage, _ = STAGES[name]()
    axes = stage.axes()
    params = jax.eval_shape(stage.init, KEY)
    for path, leaf in trees.named(params).items():
        parts = path.split('/')
        names = [axes[key] for i in range(len(parts)) if (key := '/'.join(parts[i:])) in axes]
        assert names, path
        assert len(names[0]) == leaf.ndim, path
