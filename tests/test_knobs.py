"""Settings that describe themselves, alone: names, texts, ranges."""

import dataclasses

import numpy as np
import pytest

from ldm_jax import knobs
from ldm_jax.knobs import group, knob


@dataclasses.dataclass(frozen=True)
class Inner:
    scale: float | None = knob(2.0, float, 'how much', name='inner_scale', png='Scale', within='(0, 5]')
    rule: str = knob('one', str, 'which', among=('one', 'two'))
    aside: object = None  # described by nobody


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int = knob(1, int, 'how many', least=1)
    inner: Inner = group(Inner)
    pair: tuple | None = knob(None, int, 'two', many=2, mark='x', form='WIDTHxHEIGHT')
    span: tuple | None = knob(None, float, 'from and to', many=2, mark=' to ', within='[0, inf]')
    words: tuple | None = knob(None, str, 'some', many='+')
    sampler: object = knob('a', str, 'name or spec')
    image: object = knob(None, str, 'any', image=True)


def test_settings_stand_side_by_side_under_flat_names():
    names = list(knobs.settings(Outer))
    assert names == ['count', 'inner_scale', 'rule', 'pair', 'span', 'words', 'sampler', 'image']
    assert knobs.settings(Outer)['inner_scale'].path == ('inner', 'scale')
    made = knobs.make(Outer, dict(inner_scale=3.0, count=2))
    assert made == Outer(2, Inner(3.0))
    assert knobs.flat(made) == dict.fromkeys(names) | dict(count=2, inner_scale=3.0, rule='one', sampler='a')
    assert knobs.changed(made) == dict(inner_scale=3.0, count=2)
    assert knobs.replace(made, rule='two') == Outer(2, Inner(3.0, 'two'))
    assert knobs.changed(Outer(image=np.zeros((2, 2)))).keys() == {'image'}
    with pytest.raises(ValueError, match="No setting 'inner_scal'; .*Did you mean 'inner_scale'"):
        knobs.make(Outer, dict(inner_scal=1.0))


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('count', 3, '3'), ('inner_scale', 0.5, '0.5'), ('rule', 'two', 'two'), ('pair', (64, 32), '64x32'),
        ('span', (0.25, 5.0), '0.25 to 5.0'), ('pair', (-1, 2), '-1x2'),
    ],
)  # fmt: skip
def test_values_are_written_and_read(name, value, text):
    setting = knobs.settings(Outer)[name]
    assert knobs.write(setting, value) == text
    assert knobs.read(setting, text) == value


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('count', 'x', "count must be a whole number; got 'x'"),
        ('count', '1.5', "count must be a whole number; got '1.5'"),
        ('inner_scale', '', "inner_scale must be a number; got ''"),
        ('pair', '64', "pair must be 2 numbers, WIDTHxHEIGHT; got '64'"),
        ('pair', '64xx', "pair must be 2 numbers, WIDTHxHEIGHT; got '64xx'"),
        ('span', '1 to 2 to 3', 'span must be 2 values, each a number'),
    ],
)
def test_texts_that_cannot_be_read_are_named(name, text, message):
    with pytest.raises(ValueError, match=message):
        knobs.read(knobs.settings(Outer)[name], text)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('count', 0, 'count must be at least 1; got 0'),
        ('count', 1.5, 'count must be a whole number; got 1.5'),
        ('inner_scale', False, 'inner_scale must be a number; got False'),
        ('count', '2', "count must be a whole number; got '2'"),
        ('inner_scale', 0.0, r'inner_scale must be in \(0, 5\]; got 0.0'),
        ('inner_scale', float('nan'), r'inner_scale must be in \(0, 5\]; got nan'),
        ('inner_scale', [1.0, 6.0], r'inner_scale must be in \(0, 5\]; got 6.0'),
        ('inner_scale', np.float32([1, -1]), r'inner_scale must be in \(0, 5\]; got -1.0'),
        ('rule', 'three', "No rule 'three'; have"),
        ('rule', 3, 'rule must be a text; got 3'),
        ('pair', (1, 2, 3), r'pair must be 2 numbers, WIDTHxHEIGHT; got \(1, 2, 3\)'),
        ('pair', '64', 'pair must be 2 numbers, WIDTHxHEIGHT; got 64'),
        ('words', ('a', 1), 'words must be a text; got 1'),
    ],
)
def test_values_that_are_wrong_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        knobs.check(knobs.make(Outer, {name: value}))


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('count', np.int64(3)), ('inner_scale', 5), ('inner_scale', np.float32(0.5)), ('inner_scale', None),
        ('span', (0, float('inf'))), ('sampler', dict(name='a', eta=1)), ('image', b'bytes'), ('words', ('a', 'b')),
    ],
)  # fmt: skip
def test_values_that_are_right_pass(name, value):
    knobs.check(knobs.make(Outer, {name: value}))
