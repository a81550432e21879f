"""Updates of generator and discriminator, against the original's restated in torch and against each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import autoencoder
from ldm_jax.checkpoints.layouts import discriminator as discriminator_layout
from ldm_jax.checkpoints.layouts import lpips as lpips_layout
from ldm_jax.models import discriminator, lpips, vae, vq
from ldm_jax.training import ema
from ldm_jax.training.stages import adversarial, first_stage
from ldm_jax.training.state import create
from tests import oracles
from tests.training import tiny_stages

LR, B, SIZE = 1e-3, 8, 16
KEY = jax.random.key(0)
# In float64, so that rounding hides nothing.
NARROW = dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, num_groups=4, dtype=jnp.float64)
MODELS = {'kl': vae.Model(z_channels=2, **NARROW), 'vq': vq.Model(num_codes=16, z_channels=2, **NARROW)}
TINY = {'kl': tiny_stages.Kl(jnp.float64), 'vq': tiny_stages.Vq(jnp.float64)}
NET_D = discriminator.Model(channels=4, num_layers=2, dtype=jnp.float64)
DECAYS = {'main': ema.named(dict(name='constant', decay=0.9))}
ADAM = optax.adam(LR, b1=0.5, b2=0.9)


class Fed(first_stage.Stage):
    """A stage whose noise comes with the batch."""

    def draw(self, key, batch):
        return batch['eps']


def batch_of(kind, seed):
    rng = np.random.default_rng(seed)
    eps = rng.standard_normal((B, SIZE // 2, SIZE // 2, 2)) if kind == 'kl' else None
    return {'image': rng.uniform(-1, 1, (B, SIZE, SIZE, 3)), 'eps': eps}


def stage_of(kind, **fields):
    fields = dict(perceptual_weight=0.0, discriminator=NET_D, kl_weight=1e-3) | fields
    return Fed(**(dict(first_stage=TINY[kind], image_size=SIZE) | fields))


def state_of(stage, tx=ADAM, discriminator_tx=ADAM):
    generator = create(stage.init(KEY), tx, DECAYS)
    return trees.cast(adversarial.create(stage, KEY, generator, discriminator_tx), jnp.float64)


def stepper(stage, discriminator_tx=ADAM, **options):
    return functools.partial(
        adversarial.train_step,
        stage=stage,
        tx=ADAM,
        discriminator_tx=discriminator_tx,
        decays=DECAYS,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['kl', 'vq'])
def test_two_updates_of_both_are_those_of_the_original(kind):
    torch = pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    from tests.training import restated_gan

    blocks = dict(
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
        block_out_channels=(8, 16),
        latent_channels=2,
        norm_num_groups=4,
    )
    if kind == 'kl':
        theirs = diffusers.AutoencoderKL(**blocks)
    else:
        theirs = diffusers.VQModel(**blocks, num_vq_embeddings=16, vq_embed_dim=2)
    net_d, net_p = restated_gan.discriminator(4, 2), restated_gan.Lpips('vgg')
    for n, net in enumerate((theirs, net_d, net_p)):
        oracles.randomize(net, seed=n)
        net.double().train()
    net_p.eval().requires_grad_(False)
    layouts = {
        'first_stage': autoencoder.layout(MODELS[kind], 'diffusers'),
        'discriminator': discriminator_layout.layout(NET_D),
        'perceptual': lpips_layout.layout(lpips.Model('vgg'), 'torchvision'),
    }
    models = {'first_stage': MODELS[kind], 'discriminator': NET_D, 'perceptual': lpips.Model('vgg')}
    nets = {'first_stage': theirs, 'discriminator': net_d, 'perceptual': net_p}
    weights = dict(kl_weight=1e-3) if kind == 'kl' else dict(codebook_weight=1.0)
    players = restated_gan.Players(theirs, net_d, net_p, lr=LR, disc_weight=0.5, **weights)

    with oracles.float64():
        pretrained = {
            part: jax.tree.map(
                jnp.asarray,
                oracles.params_like(models[part], layouts[part], oracles.tensors(nets[part]), size=32),
            )
            for part in models
        }
        stage = stage_of(
            kind,
            first_stage=MODELS[kind],
            pretrained=pretrained,
            perceptual=lpips.Model('vgg', dtype=jnp.float64),
            perceptual_weight=1.0,
            **weights,
        )
        state, step = state_of(stage), jax.jit(stepper(stage))
        for seed in (3, 4):
            batch = batch_of(kind, seed)
            state, metrics = step(state, batch, KEY)
            x = torch.from_numpy(batch['image'].transpose(0, 3, 1, 2).copy())
            eps = None if kind == 'vq' else torch.from_numpy(batch['eps'].transpose(0, 3, 1, 2).copy())
            expected = players.generator_step(x, eps) | players.discriminator_step(x, eps)
            assert {name: float(metrics[name]) for name in expected} == pytest.approx(expected, rel=1e-6)
    ours = {'first_stage': state.params['first_stage'], 'discriminator': state.discriminator.params}
    for part, params in ours.items():
        found = apply_layout.export_params(layouts[part], params)
        exact = oracles.tensors(nets[part])
        for key, array in found.items():
            np.testing.assert_allclose(array, exact[key], rtol=0, atol=1e-7, err_msg=key)  # LR is 1e-3
    for n in (1, 2):
        kept = state.discriminator.batch_stats[f'norm_{n}']
        norm = net_d['main'][3 * n]
        np.testing.assert_allclose(kept['mean'], norm.running_mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(kept['var'], norm.running_var, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['kl', 'vq'])
def test_any_number_of_devices_goes_through_the_same_states(kind):
    with oracles.float64():
        stage = stage_of(kind)
        batches = [batch_of(kind, seed) for seed in (0, 1)]
        start = state_of(stage)

        def run(step, state, place):
            for batch in batches:
                state, metrics = step(state, place(batch))
            return state, metrics

        alone = jax.jit(stepper(stage))
        expected = run(lambda state, batch: alone(state, batch, KEY), start, lambda batch: batch)

        mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
        place = functools.partial(jax.device_put, device=NamedSharding(mesh, P('data')))
        sharded = run(
            lambda state, batch: alone(state, batch, KEY),
            jax.device_put(start, NamedSharding(mesh, P())),
            place,
        )

        mapped = jax.pmap(stepper(stage, axis_name='batch'), axis_name='batch')
        replicated = jax.tree.map(lambda a: jnp.broadcast_to(a, (8, *a.shape)), start)
        keys = jnp.stack([KEY] * 8)
        split = functools.partial(jax.tree.map, lambda a: a.reshape(8, B // 8, *a.shape[1:]))
        state, metrics = run(lambda state, batch: mapped(state, batch, keys), replicated, split)
        first = jax.tree.map(lambda a: a[0], (state, metrics))
        for found in (sharded, first):
            # Rounding alone is left, and Adam's first steps carry it on where a gradient is all but 0.
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), found, expected)
        for leaf in jax.tree.leaves(state):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))  # replicas stay equal
        assert expected[1]['disc_weight'] > 0


@pytest.mark.slow
def test_before_its_start_the_adversary_changes_nothing():
    with oracles.float64():
        waiting = stage_of('kl', disc_start=2)
        batch = batch_of('kl', 0)
        step = jax.jit(stepper(waiting))
        without = jax.jit(stepper(stage_of('kl', disc_weight=0.0, disc_start=100)))
        state = alone = start = state_of(waiting)
        for _ in range(2):
            state, metrics = step(state, batch, KEY)
            alone, _ = without(alone, batch, KEY)
            assert metrics['g_loss'] == metrics['disc_weight'] == metrics['disc_loss'] == 0
        same = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10)  # two programs
        jax.tree.map(same, state, alone)
        jax.tree.map(np.testing.assert_array_equal, state.discriminator, start.discriminator)
        state, metrics = step(state, batch, KEY)
        alone, _ = without(alone, batch, KEY)
        assert metrics['disc_weight'] > 0
        assert metrics['disc_loss'] > 0
        before, after = (trees.named(s.discriminator.params) for s in (start, state))
        # The last bias may stay: the hinge of the images pulls it up as much as that of reconstructions down.
        assert all(np.any(before[name] != after[name]) for name in before if name != 'conv_out/bias')
        kernel = [s.params['first_stage']['decoder']['conv_out']['kernel'] for s in (state, alone)]
        assert np.abs(kernel[0] - kernel[1]).max() > 1e-5


@pytest.mark.slow
def test_the_discriminator_tells_images_from_reconstructions_after_training():
    # An untrained generator that learns almost nothing makes smooth grey; images are noise. Those can be distinguished.
    stage = stage_of('kl')
    stage = dataclasses.replace(
        stage,
        first_stage=tiny_stages.Kl(),
        discriminator=dataclasses.replace(NET_D, dtype=jnp.float32),
    )
    slow = optax.adam(1e-6)
    current = adversarial.create(stage, KEY, create(stage.init(KEY), slow, DECAYS), ADAM)
    step = jax.jit(
        functools.partial(adversarial.train_step, stage=stage, tx=slow, discriminator_tx=ADAM, decays=DECAYS)
    )
    losses = []
    for n in range(60):
        current, metrics = step(current, trees.cast(batch_of('kl', n), jnp.float32), KEY)
        losses.append(float(metrics['disc_loss']))
    assert losses[0] > 0.8  # the hinge of logits around 0 is 1
    assert np.mean(losses[-5:]) < 0.2
    assert metrics['logits_real'] > 0.5 > -0.5 > metrics['logits_fake']


@pytest.mark.slow
def test_what_is_not_finite_changes_no_discriminator():
    batch = batch_of('kl', 0)
    batch['image'][0, 0, 0, 0] = np.nan
    with oracles.float64():
        stage = stage_of('kl')
        start = state_of(stage)
        state, metrics = jax.jit(stepper(stage))(start, batch, KEY)
        jax.tree.map(np.testing.assert_array_equal, state.discriminator, start.discriminator)
    assert metrics['nonfinite'] == 1
