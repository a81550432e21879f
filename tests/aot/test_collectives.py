"""Collectives of real programs: kinds, sizes and axes known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ldm_jax.aot import collectives, hlo
from tests.aot.programs import SIZES, like, mesh, text


def found(function, *args):
    names = [name for name, arg in zip(('state', 'batch'), args, strict=False) for _ in jax.tree.leaves(arg)]
    return collectives.collectives(hlo.parse(text(function, *args)), SIZES, names)


@pytest.mark.parametrize('axes', [('data',), ('fsdp',), ('data', 'fsdp')])
def test_a_sum_over_devices(axes):
    def body(state):
        return jax.lax.psum(state, axes)

    summed = jax.shard_map(
        body, mesh=mesh(), in_specs=P(('data', 'fsdp')), out_specs=P(None, None), check_vma=False
    )
    (one,) = found(lambda state: summed(state), like((80, 16), ('data', 'fsdp')))
    devices = np.prod([SIZES[axis] for axis in axes])
    assert (one.kind, one.axes, one.group, one.times) == ('all-reduce', axes, devices, 1)
    assert one.nbytes == 10 * 16 * 4  # one device's part of 80 rows
    assert one.sent == pytest.approx(2 * one.nbytes * (devices - 1) / devices)


def test_a_permutation_in_a_loop_counts_each_round():
    def body(state):
        def turn(x, _):
            return jax.lax.ppermute(jnp.tanh(x), 'fsdp', [(i, (i + 1) % 4) for i in range(4)]), None

        return jax.lax.scan(turn, state, None, length=6)[0]

    turned = jax.shard_map(body, mesh=mesh(), in_specs=P('fsdp'), out_specs=P('fsdp'), check_vma=False)
    (one,) = found(lambda state: turned(state), like((8, 16), 'fsdp'))
    assert (one.kind, one.axes, one.times, one.nbytes) == ('collective-permute', ('fsdp',), 6, 2 * 16 * 4)
    assert (one.sent, one.moves) == (6 * 128, collectives.WEIGHTS)


def constrained(x, *spec):
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh(), P(*spec)))


def test_gathered_weights_and_gathered_activations_are_told_apart():
    def weights(state, batch):
        return batch @ constrained(2 * state['w'], None, None)

    def activations(state, batch):
        return constrained(batch @ state['w'], None, None)

    args = {'w': like((16, 32), 'fsdp')}, like((24, 16), 'data')
    (one,) = found(weights, *args)
    assert (one.kind, one.axes, one.moves, one.nbytes) == ('all-gather', ('fsdp',), 'weights', 16 * 32 * 4)
    gathers = [
        c for c in found(activations, {'w': like((16, 32))}, like((24, 16), 'data')) if c.kind == 'all-gather'
    ]
    assert {(c.axes, c.moves) for c in gathers} == {(('data',), collectives.ACTIVATIONS)}


def test_weights_stay_weights_through_loops_and_what_examples_touched_does_not():
    def looped(state, batch):
        def layer(h, w):
            return jnp.tanh(h @ constrained(w, None, None)), None

        h, _ = jax.lax.scan(layer, batch, state)
        return constrained(h, None, None)

    args = like((3, 16, 16), None, 'fsdp'), like((24, 16), 'data')
    gathers = {(c.moves, c.axes, c.times) for c in found(looped, *args) if c.kind == 'all-gather'}
    assert ('weights', ('fsdp',), 3) in gathers or ('weights', ('fsdp',), 1) in gathers  # hoisted or not
    assert (collectives.ACTIVATIONS, ('data',), 1) in gathers
    assert len(gathers) == 2


TUPLED = """HloModule jit_f, is_scheduled=true

ENTRY %main (p: (f32[4,16], f32[12,16])) -> (f32[16,16], f32[24,16]) {
  %p = (f32[4,16]{1,0}, f32[12,16]{1,0}) parameter(0)
  %w = f32[4,16]{1,0} get-tuple-element(%p), index=0
  %x = f32[12,16]{1,0} get-tuple-element(%p), index=1
  %a = f32[16,16]{1,0} all-gather(%w), replica_groups=[2,4]<=[8], dimensions={0}
  %b = f32[24,16]{1,0} all-gather(%x), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  ROOT %t = (f32[16,16]{1,0}, f32[24,16]{1,0}) tuple(%a, %b)
}
"""


def test_many_arguments_come_as_one_tuple_on_a_tpu():
    both = collectives.collectives(hlo.parse(TUPLED), SIZES, ['state', 'batch'])
    assert [(c.axes, c.moves, c.nbytes) for c in both] == [
        (('fsdp',), 'weights', 16 * 16 * 4),
        (('data',), collectives.ACTIVATIONS, 24 * 16 * 4),
    ]
    with pytest.raises(ValueError, match='3 arguments are named'):
        collectives.collectives(hlo.parse(TUPLED), SIZES, ['state', 'state', 'batch'])


def test_rows_add_up():
    one = collectives.Collective('all-reduce', 100, 3, ('data',), 4, '', '')
    other = collectives.Collective('all-reduce', 40, 1, ('data',), 4, '', '')
    third = collectives.Collective('all-gather', 1000, 1, ('fsdp',), 2, 'weights', '')
    rows = collectives.rows([one, third, other])
    assert [(r.kind, r.lines, r.times, r.nbytes, r.largest, r.sent) for r in rows] == [
        ('all-reduce', 2, 4, 340, 100, 510),
        ('all-gather', 1, 1, 1000, 1000, 500),
    ]


def groups(attributes, devices=8):
    line = hlo.Instruction('a', 'all-reduce', (), (), attributes, ())
    return collectives.replica_groups(line, devices).tolist()


@pytest.mark.parametrize(
    ('attributes', 'expected'),
    [
        ('replica_groups={{0,2},{1,3}}, x', [[0, 2], [1, 3]]),
        ('replica_groups={}, x', [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ('replica_groups=[2,4]<=[8], x', [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ('replica_groups=[4,2]<=[2,4]T(1,0), x', [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ('replica_groups=[2,4]<=[2,2,2]T(1,0,2), x', [[0, 1, 4, 5], [2, 3, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, x", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_every_form_of_replica_groups(attributes, expected):
    assert groups(attributes) == expected


def test_a_form_that_is_new_is_refused():
    with pytest.raises(ValueError, match='not known here'):
        groups('replica_groups=by_magic, x')


def test_axes_are_those_along_which_members_differ():
    ids = np.arange(24).reshape(2, 3, 4)
    sizes = {'data': 2, 'fsdp': 3, 'tensor': 4}
    assert collectives.axes(ids.reshape(6, 4), sizes) == ('tensor',)
    assert collectives.axes(ids.transpose(0, 2, 1).reshape(8, 3), sizes) == ('fsdp',)
    assert collectives.axes(ids.transpose(1, 0, 2).reshape(3, 8), sizes) == ('data', 'tensor')
