"""PatchGAN: parity with torch in both modes, running averages, sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import discriminator as layouts
from ldm_jax.models import discriminator
from tests import oracles

MODEL = discriminator.Model(channels=4, num_layers=3, dtype=jnp.float64)


def test_parity_with_torch_in_both_modes():
    torch = pytest.importorskip('torch')
    from tests.training import restated_gan

    reference = restated_gan.discriminator(4, 3).double()
    oracles.randomize(reference)
    rng = np.random.default_rng(0)
    batches = rng.uniform(-1, 1, (2, 2, 32, 40, 3))
    theirs = [reference['main'](torch.from_numpy(x.transpose(0, 3, 1, 2).copy())) for x in batches]
    theirs.append(reference.eval()['main'](torch.from_numpy(batches[0].transpose(0, 3, 1, 2).copy())))
    layout, state = layouts.layout(MODEL), oracles.tensors(reference)

    @functools.partial(jax.jit, static_argnames='running')
    def run(variables, x, running=False):
        mutable = [] if running else ['batch_stats']
        return MODEL.apply(variables, x, running, mutable=mutable)

    with oracles.float64():
        params = oracles.params_like(MODEL, layout, state)
        stats = MODEL.init(jax.random.key(0), batches[0])['batch_stats']
        for x, expected in zip(batches, theirs, strict=False):
            logits, new = run({'params': params, 'batch_stats': stats}, x)
            stats = new['batch_stats']
            assert oracles.relative_error(logits[..., 0], expected.detach().numpy()[:, 0]) < 1e-9
            # without a collection to write to, the same logits and no memory
            again = jax.jit(MODEL.apply)({'params': params}, x)
            np.testing.assert_allclose(again, logits, rtol=1e-12)
        for n in (1, 2, 3):
            norm = reference['main'][3 * n]
            np.testing.assert_allclose(stats[f'norm_{n}']['mean'], norm.running_mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(stats[f'norm_{n}']['var'], norm.running_var, rtol=1e-9)
        logits, _ = run({'params': params, 'batch_stats': stats}, batches[0], running=True)
        assert oracles.relative_error(logits[..., 0], theirs[-1].detach().numpy()[:, 0]) < 1e-9
        exported = apply_layout.export_params(layout, params)
    learned = {key for key in state if not key.rpartition('.')[2].startswith(('running', 'num_batches'))}
    assert exported.keys() == learned
    assert all(np.array_equal(exported[key], state[key]) for key in learned)


@pytest.mark.slow
def test_the_published_size_and_initial_weights():
    # counted on the module of the original: 64 filters, images of 3 channels
    for num_layers, count in ((2, 663_361), (3, 2_765_633)):
        assert trees.count(trees.shapes(discriminator.Model(num_layers=num_layers))) == count
    params = trees.init(discriminator.Model(num_layers=2), jax.random.key(0), size=16)
    kernel = np.asarray(params['conv_2']['kernel'])
    assert kernel.std() == pytest.approx(0.02, rel=0.02)
    assert np.asarray(params['norm_2']['scale']).mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_the_smallest_images_pass_and_smaller_ones_are_refused(num_layers):
    model = discriminator.Model(num_layers=num_layers)
    smallest = 3 * 2**num_layers
    shapes = trees.shapes(model)

    def run(size):
        return jax.eval_shape(
            model.apply, {'params': shapes}, jax.ShapeDtypeStruct((2, size, 64, 3), jnp.float32)
        )

    assert run(smallest).shape[:2] == (2, 1)
    with pytest.raises(ValueError, match=f'at least {smallest}'):
        run(smallest - 1)
