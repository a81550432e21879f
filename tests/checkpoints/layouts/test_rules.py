"""Layout rules: bijections both ways, what the fused projection means, and what import and export refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.layouts import rules


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# Rules of one module 'there' <-> 'here', its torch tensors' shapes, and our leaves' shapes.
KINDS = {
    'tensor': (rules.tensor('there', 'here'), {'there': (5, 4)}, {'here': (5, 4)}),
    'transposed': (rules.transposed('there', 'here'), {'there': (5, 4)}, {'here': (4, 5)}),
    'embed': (rules.embed('there', 'here'), {'there.weight': (5, 4)}, {'here/embedding': (5, 4)}),
    'norm': (
        rules.norm('there', 'here'),
        {'there.weight': (5,), 'there.bias': (5,)},
        {'here/scale': (5,), 'here/bias': (5,)},
    ),
    'conv': (
        rules.conv('there', 'here'),
        {'there.weight': (5, 4, 3, 2), 'there.bias': (5,)},
        {'here/kernel': (3, 2, 4, 5), 'here/bias': (5,)},
    ),
    'conv without bias': (
        rules.conv('there', 'here', bias=False),
        {'there.weight': (5, 4, 3, 2)},
        {'here/kernel': (3, 2, 4, 5)},
    ),
    'dense': (
        rules.dense('there', 'here'),
        {'there.weight': (5, 4), 'there.bias': (5,)},
        {'here/kernel': (4, 5), 'here/bias': (5,)},
    ),
    'dense without bias': (
        rules.dense('there', 'here', bias=False),
        {'there.weight': (5, 4)},
        {'here/kernel': (4, 5)},
    ),
    'dense of a 1x1 convolution': (
        rules.dense('there', 'here', window=2),
        {'there.weight': (5, 4, 1, 1), 'there.bias': (5,)},
        {'here/kernel': (4, 5), 'here/bias': (5,)},
    ),
}
for head_major in (True, False):
    KINDS[f'fused_qkv, head_major={head_major}'] = (
        rules.fused_qkv('w', ['q', 'k', 'v'], 2, bias='b', head_major=head_major, window=1),
        {'w': (18, 4, 1), 'b': (18,)},
        {f'{part}/kernel': (4, 6) for part in 'qkv'} | {f'{part}/bias': (6,) for part in 'qkv'},
    )


@pytest.mark.parametrize('kind', KINDS)
def test_rules_are_bijections(kind):
    found, torch_shapes, flax_shapes = KINDS[kind]
    layout = rules.Layout(tuple(found))
    tensors = {key: normal(*shape, seed=i) for i, (key, shape) in enumerate(torch_shapes.items())}
    shapes = rules.unflatten({path: np.empty(shape) for path, shape in flax_shapes.items()})

    params = apply_layout.import_params(layout, tensors, shapes)
    exported = apply_layout.export_params(layout, params)
    assert exported.keys() == tensors.keys()
    for key, array in exported.items():
        assert np.array_equal(array, tensors[key])
        assert array.flags.c_contiguous  # safetensors writes the buffer, whatever the strides


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2), st.booleans())
def test_fused_projections_round_trip(num_heads, head_width, inputs, window, head_major):
    found = rules.fused_qkv('w', 'qkv', num_heads, bias='b', head_major=head_major, window=window)
    for rule, shape in zip(found, [(inputs, *(1,) * window), ()], strict=True):
        fused = normal(3 * num_heads * head_width, *shape)
        (again,) = rule.to_torch(rule.to_flax((fused,)))
        assert np.array_equal(again, fused)


def attention(q, k, v):
    """One head over tokens: [K, T] each -> [K, T]."""
    weights = np.exp(q.T @ k / np.sqrt(len(q)))
    return v @ (weights / weights.sum(axis=1, keepdims=True)).T


@pytest.mark.parametrize('head_major', [True, False])
def test_fused_projections_mean_what_attention_does_with_them(head_major):
    heads, width, tokens = 3, 2, normal(4, 5)  # [D, T], as in torch
    weight, bias = normal(3 * heads * width, 4, seed=1), normal(3 * heads * width, seed=2)
    projected = weight @ tokens + bias[:, None]
    if head_major:  # q, k, v of the first head, then of the second
        blocks = [np.split(head, 3) for head in np.split(projected, heads)]
    else:  # all of q, all of k, all of v
        blocks = zip(*(np.split(part, heads) for part in np.split(projected, 3)), strict=True)
    expected = np.concatenate([attention(*block) for block in blocks])

    found = rules.fused_qkv('w', 'qkv', heads, bias='b', head_major=head_major)
    kernels, biases = found[0].to_flax((weight,)), found[1].to_flax((bias,))
    q, k, v = (tokens.T @ kernel + b for kernel, b in zip(kernels, biases, strict=True))  # [T, N K], as here
    ours = [attention(*(part[:, n * width : (n + 1) * width].T for part in (q, k, v))) for n in range(heads)]
    assert np.allclose(np.concatenate(ours), expected, atol=1e-5)


LAYOUT = rules.Layout(
    (*rules.dense('there', 'here'), *rules.norm('old', 'new/norm')),
    {'there.steps': 'a counter', 'ema.*': 'an average'},
)
TENSORS = {
    'there.weight': normal(5, 4),
    'there.bias': normal(5),
    'old.weight': normal(3),
    'old.bias': normal(3),
}
SHAPES = {
    'here': {'kernel': np.empty((4, 5)), 'bias': np.empty(5)},
    'new': {'norm': {'scale': np.empty(3), 'bias': np.empty(3)}},
}


def test_import_reads_every_key_into_its_place():
    params = apply_layout.import_params(LAYOUT, TENSORS, SHAPES)
    assert np.array_equal(params['here']['kernel'], TENSORS['there.weight'].T)
    assert np.array_equal(params['new']['norm']['scale'], TENSORS['old.weight'])


def test_ignored_keys_may_be_there_and_others_may_not():
    extra = {'there.steps': normal(1), 'ema.there.weight': normal(5, 4)}
    apply_layout.import_params(LAYOUT, TENSORS | extra, SHAPES)
    assert LAYOUT.ignored('ema.there.weight') == 'an average'
    assert LAYOUT.ignored('there.steps.2') is None  # no star, no prefix
    with pytest.raises(ValueError, match=r'none missing, lora\.up, there\.steps\.2 unknown'):
        apply_layout.import_params(
            LAYOUT, TENSORS | {'there.steps.2': normal(1), 'lora.up': normal(1)}, SHAPES
        )


def test_missing_keys_are_named():
    tensors = {key: array for key, array in TENSORS.items() if key != 'old.bias'}
    with pytest.raises(ValueError, match=r'old\.bias missing, none unknown'):
        apply_layout.import_params(LAYOUT, tensors, SHAPES)


def test_many_missing_keys_are_counted():
    layout = rules.Layout(tuple(rule for i in range(4) for rule in rules.norm(f'n{i}', f'n{i}')))
    with pytest.raises(ValueError, match=r'n0\.bias, .*n2\.bias and 3 more missing'):
        apply_layout.import_params(layout, {}, {})


def test_a_misshaped_tensor_is_named_with_both_shapes():
    with pytest.raises(
        ValueError, match=r'there\.weight \(5, 5\) gives here/kernel shape \(5, 5\).* needs \(4, 5\)'
    ):
        apply_layout.import_params(LAYOUT, TENSORS | {'there.weight': normal(5, 5)}, SHAPES)


@pytest.mark.parametrize(
    ('found', 'tensor'),
    [
        (rules.dense('there', 'here', bias=False), normal(5, 4, 1, 1)),
        (rules.dense('there', 'here', bias=False, window=2), normal(5, 4)),
        (rules.dense('there', 'here', bias=False, window=2), normal(5, 4, 3, 3)),
        (rules.conv('there', 'here', bias=False), normal(5, 4)),
        (rules.fused_qkv('there.weight', 'qkv', 2, head_major=True), normal(16, 4)),
    ],
)
def test_a_tensor_of_another_kind_is_named(found, tensor):
    with pytest.raises(ValueError, match=r'there\.weight'):
        apply_layout.import_params(rules.Layout(tuple(found)), {'there.weight': tensor}, {})


def test_paths_that_the_model_has_not_or_the_layout_has_not_are_named():
    with pytest.raises(ValueError, match='new/norm/scale, which the model does not have'):
        apply_layout.import_params(LAYOUT, TENSORS, {'here': SHAPES['here']})
    with pytest.raises(ValueError, match='leaves parameters unset: more'):
        apply_layout.import_params(LAYOUT, TENSORS, SHAPES | {'more': np.empty(1)})


def test_export_needs_the_parameters_of_the_layout():
    params = apply_layout.import_params(LAYOUT, TENSORS, SHAPES)
    with pytest.raises(ValueError, match='none missing, more not in the layout'):
        apply_layout.export_params(LAYOUT, params | {'more': normal(1)})
    with pytest.raises(ValueError, match='here/bias, here/kernel missing, none not in the layout'):
        apply_layout.export_params(LAYOUT, {'new': params['new']})


@pytest.mark.parametrize('names', [('a', 'x', 'a', 'y'), ('a', 'x', 'b', 'x')])
def test_a_name_that_comes_twice_is_refused(names):
    first, here, second, there = names
    with pytest.raises(ValueError, match=r'the same (torch|flax) side: [ax]'):
        rules.Layout((*rules.tensor(first, here), *rules.tensor(second, there)))


def test_prefixed_moves_both_sides_and_what_is_ignored():
    layout = rules.prefixed(LAYOUT, 'model.', 'unet/')
    tensors = {f'model.{key}': array for key, array in TENSORS.items()}
    params = apply_layout.import_params(layout, tensors | {'model.ema.x': normal(1)}, {'unet': SHAPES})
    assert np.array_equal(params['unet']['here']['bias'], TENSORS['there.bias'])
    assert apply_layout.export_params(layout, params).keys() == tensors.keys()
    assert layout.ignored('ema.x') is None


@given(st.dictionaries(st.text('abc', min_size=1, max_size=3), st.integers(), min_size=1))
def test_unflatten_nests_paths(leaves):
    tree = rules.unflatten({f'outer/{name}/leaf': value for name, value in leaves.items()})
    assert tree == {'outer': {name: {'leaf': value} for name, value in leaves.items()}}
