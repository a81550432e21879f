"""Sweeps as data: which cells they stand for, and what tells cells apart."""

import dataclasses

import pytest

from ldm_jax.sweeps import definition


def test_every_combination_of_what_varies_with_each_of_the_list():
    config = dict(
        settings=dict(a=0), vary=dict(b=[1, 2], c=['x', 'y', 'z']), listed=[dict(d=5), dict(d=6, a=1)]
    )
    found = definition.settings(config)
    assert len(found) == 12
    assert found[0] == dict(a=0, d=5, b=1, c='x')
    assert found[-1] == dict(a=1, d=6, b=2, c='z')


def test_draws_are_distinct_in_range_and_have_all_seeds():
    vary = dict(scale=dict(low=1.0, high=100.0, log=True), eta=[0, 1], seed=[0, 1, 2])
    found = definition.settings(dict(vary=vary, draws=dict(count=200, seed=3)))
    assert found == definition.settings(dict(vary=vary, draws=dict(count=200, seed=3)))
    assert len(found) == 600
    assert [each['seed'] for each in found[:3]] == [0, 1, 2]
    assert len({each['scale'] for each in found}) == 200
    # Even in the logarithm: half below 10.
    assert 70 < sum(each['scale'] < 10 for each in found[::3]) < 130
    assert len(definition.settings(dict(vary=dict(a=[1, 2]), draws=dict(count=9)))) == 2  # there are no more


def test_a_key_is_of_everything_that_a_result_depends_on_and_of_nothing_else():
    one = definition.key(dict(name='x'), dict(a=1, b=2), dict(model='aa'))
    assert one == definition.key(dict(name='x'), dict(b=2, a=1), dict(model='aa'))
    others = [
        (dict(name='y'), dict(a=1, b=2), dict(model='aa')),
        (dict(name='x'), dict(a=1, b=2.5), dict(model='aa')),
        (dict(name='x'), dict(a=1, b=2), dict(model='bb')),
    ]
    assert len({one, *(definition.key(*other) for other in others)}) == 4


@dataclasses.dataclass(frozen=True)
class Kind:
    """Cells of nothing."""

    def check(self, settings):
        pass

    def identity(self, settings):
        return {}


def test_equal_cells_are_one_and_what_varies_is_read_off_them():
    config = dict(cells=dict(name=__name__), settings=dict(a=1), vary=dict(b=[1, 2, 1], seed=[0, 1]))
    found = definition.sweep(config)
    assert len(found.cells) == 4
    assert found.varied == ('b', 'seed')


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (dict(cell={}), "No field of a sweep 'cell'.*Did you mean 'cells'"),
        (dict(vary={}), "needs 'cells'"),
        (dict(cells=dict(name='samplings')), "Did you mean 'sampling'"),
        (dict(cells=dict(name=__name__), vary=dict(a=[])), 'no cells'),
        (dict(cells=dict(name=__name__), vary=dict(a=3)), 'vary.a must be a list'),
        (dict(cells=dict(name=__name__), vary=dict(a=dict(low=0, high=1))), 'vary.a is a range'),
        (
            dict(cells=dict(name=__name__), vary=dict(a=dict(low=1, high=0)), draws=dict(count=1)),
            'low < high',
        ),
    ],
)
def test_wrong_sweeps_are_one_line(config, words):
    with pytest.raises(ValueError, match=words):
        definition.sweep(config)
