"""What stands as a denoising network keeps types.DenoisingNetwork, or is refused in one line."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.plain_transformer import model as plain_transformer
from ldm_jax import build, costs, denoising, trees
from ldm_jax.models import dit, unet
from ldm_jax.types import Cond, CondWidths
from tests.contracts import tiny_network

UNET = dict(
    channels=8, channel_mult=(1, 2), num_res_blocks=1, depth=(0, 0), mid_depth=0, num_heads=1, num_groups=4
)


class Bare(nn.Module):
    """The least that a network is: one field and a call."""

    out_channels: int = 4

    @nn.compact
    def __call__(self, x, t, cond):
        return nn.Dense(self.out_channels)(x) + t[:, None, None, None]


NETWORKS = {
    'bare': Bare(),
    'unet': unet.Model(**UNET),
    'unet_text': unet.Model(context_width=6, **UNET),
    'unet_beside': unet.Model(in_channels=9, vector_width=5, num_classes=7, **UNET),
    'plain_transformer': plain_transformer.Model(context_width=6, width=8, depth=1, num_heads=2, patch=2),
    'dit': dit.Model(width=8, depth=1, num_heads=2, num_classes=5),
    'tiny': tiny_network.Model(4, context=5, concat=2, vector=3, label=4),
}
WIDTHS = {
    'bare': CondWidths(),
    'unet': CondWidths(),
    'unet_text': CondWidths(context=6),
    'unet_beside': CondWidths(concat=5, vector=5, label=7),
    'plain_transformer': CondWidths(context=6),
    'dit': CondWidths(label=5),
    'tiny': CondWidths(5, 2, 3, 4),
}


@pytest.fixture(scope='module', params=NETWORKS)
def name(request):
    return request.param


def test_it_says_what_it_is_conditioned_on_and_is_called_so(name):
    network = NETWORKS[name]
    denoising.check(network, 8)
    assert denoising.conditioned_on(network) == WIDTHS[name]
    x, t, cond = denoising.inputs_of(network, 3, 8)
    assert (x.shape, t.shape) == ((3, 8, 8, 4), (3,))
    given = {part for part in ('context', 'concat', 'vector', 'label') if getattr(cond, part) is not None}
    assert given == {part for part, width in vars(WIDTHS[name]).items() if width is not None}
    assert 8 % denoising.downscale(network) == 0


@pytest.mark.slow
def test_one_time_for_all_is_that_time_for_each(name):
    network = NETWORKS[name]
    params = trees.init(network, jax.random.key(0), size=8)
    x, _, cond = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), denoising.inputs_of(network, 2, 8))
    call = jax.jit(denoising.bound(network, params))
    np.testing.assert_array_equal(call(x, jnp.float32(7), cond), call(x, jnp.full(2, 7.0), cond))


def test_its_parameters_have_axes_and_its_cost_is_counted(name):
    network = NETWORKS[name]
    axes, shapes = trees.logical_axes(network, size=8), trees.shapes(network, size=8)
    assert trees.named(axes).keys() == trees.named(shapes).keys()
    assert costs.cost(network, denoising.inputs_of(network, 1, 8)).params == trees.count(shapes)


class WrongShape(Bare):
    def __call__(self, x, t, cond):
        return x[..., :1]


class WrongCall(Bare):
    def __call__(self, x):
        return x


class WrongWidths(Bare):
    conditioned_on = {'context': 8}  # noqa: RUF012


class NoChannels(nn.Module):
    def __call__(self, x, t, cond):
        return x


class Unsaid(Bare):
    def __call__(self, x, t, cond):
        return x + cond.context.mean()


@pytest.mark.parametrize(
    ('network', 'words'),
    [
        (WrongShape(), r'WrongShape must return the shape of x, \[2, 8, 8, 4\]; got \[2, 8, 8, 1\]'),
        (WrongCall(), r'WrongCall fails on .* x \[2, 8, 8, 4\], t \[2\] and Cond\(\): .*argument'),
        (WrongWidths(), r"WrongWidths.conditioned_on must be a types.CondWidths.*\{'context': 8\}"),
        (NoChannels(), 'NoChannels needs a field out_channels'),
        (Unsaid(), "Unsaid fails on .*'NoneType'"),
        (Bare(out_channels=0), 'needs a field out_channels.*got 0'),
    ],
)
def test_what_is_no_denoising_network_is_refused_in_a_line(network, words):
    with pytest.raises(ValueError, match=words) as error:
        denoising.check(network, 8)
    assert '\n' not in str(error.value)


def test_parts_that_a_network_does_not_take_are_not_lost():
    """Cond carries what the network never asked for only as far as its own check."""
    network = NETWORKS['unet_text']
    with pytest.raises(ValueError, match='takes no Cond.vector'):
        jax.eval_shape(
            network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 4)), jnp.zeros(1),
            Cond(context=jnp.zeros((1, 3, 6)), vector=jnp.zeros((1, 2))),
        )  # fmt: skip


def test_every_model_named_unet_by_a_config_keeps_it():
    import configs

    for config_name in configs.names():
        config = configs.load(config_name)
        if 'name' in config.get('models', {}).get('unet', {}):  # else it is that of the model trained on
            denoising.check_fields(build.build('models', config.models.unet))
