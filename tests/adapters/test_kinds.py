"""Each kind of adapter against lycoris-lora and peft, whose own modules hold the same numbers."""

import jax
import numpy as np
import pytest
import torch
from lycoris.modules import boft, diag_oft, full, glora, ia3, locon, loha, lokr, norms

from ldm_jax.adapters import kinds
from tests.oracles import float64, randomize, relative_error
from tests.tiers import fast

STRENGTHS = (0.0, 0.5, 1.0, -1.0, 2.0)
LINEAR, SQUARE = dict(i=12, o=8), dict(i=8, o=8)
CONV, POINT = dict(i=12, o=8, k=3), dict(i=12, o=8, k=1)
# kind -> (LyCORIS' module, its settings, layers); linear in the strength there too: all strengths are compared.
ROWS = {
    'lora': (locon.LoConModule, [{}, dict(alpha=2), dict(use_tucker=True)], [LINEAR, CONV, POINT]),
    'dora by output': (locon.LoConModule, [dict(weight_decompose=True, alpha=2)], [LINEAR, SQUARE, CONV]),
    'dora by input': (
        locon.LoConModule,
        [dict(weight_decompose=True, wd_on_out=False, alpha=2)],
        [LINEAR, SQUARE, CONV],
    ),
    'loha': (
        loha.LohaModule,
        [dict(alpha=2), dict(use_tucker=True), dict(weight_decompose=True)],
        [LINEAR, CONV],
    ),
    'lokr': (
        lokr.LokrModule,
        [
            dict(alpha=2, lora_dim=1),
            dict(alpha=2, lora_dim=1, decompose_both=True, factor=2),
            dict(alpha=2, lora_dim=100),
            dict(alpha=2, lora_dim=1, use_tucker=True),
            dict(lora_dim=1, weight_decompose=True),
        ],
        [LINEAR, CONV],
    ),
    'glora': (glora.GLoRAModule, [dict(alpha=2)], [LINEAR, SQUARE, CONV]),
    'ia3': (ia3.IA3Module, [{}, dict(train_on_input=True)], [LINEAR, SQUARE, CONV]),
    'oft': (
        diag_oft.DiagOFTModule,
        [{}, dict(constraint=0.01), dict(constraint=10.0, rescaled=True)],
        [LINEAR, CONV],
    ),
    'boft': (
        boft.ButterflyOFTModule,
        [{}, dict(constraint=0.01), dict(rescaled=True)],
        [dict(i=12, o=16), dict(i=12, o=16, k=3)],
    ),
    'full': (full.FullModule, [{}], [LINEAR, CONV]),
}
# Where LyCORIS interpolates another way than on the straight line from W to W'.
ROUND = ('dora', 'boft', 'oft')


def layer(dtype, i, o, k=0):
    made = torch.nn.Conv2d(i, o, k, padding=k // 2) if k else torch.nn.Linear(i, o)
    randomize(made, 1)
    return made.to(dtype)


def tensors_of(module):
    state = module.custom_state_dict() if hasattr(module, 'custom_state_dict') else None
    state = module.state_dict() if state is None else state
    return {
        key.removesuffix('.weight') if key != 'weight' else key: value.detach().numpy()
        for key, value in state.items()
        if not key.startswith('org_') and key != 'scalar'
    }


def outputs(module, base, x, strength):
    """What the layer gives with a module around it."""
    module.multiplier = strength
    if base.forward != module.forward:
        module.apply_to()
    with torch.no_grad():
        return base(x).numpy()


def ours(tensors, base, x, strength):
    """What the layer gives with our weight."""
    weight = base.weight.detach().numpy()
    with float64():
        kind = kinds.kind_of(tensors)
        kinds.check(kind, tensors, weight.shape)
        moved = np.asarray(kinds.changed(kind, tensors, weight))
    moved, bias = weight + strength * (moved - weight), base.bias.detach()
    if 'diff_b' in tensors:
        bias = bias + strength * torch.tensor(tensors['diff_b'])
    moved = torch.tensor(moved, dtype=x.dtype)
    if moved.ndim == 2:
        return torch.nn.functional.linear(x, moved, bias).numpy()
    return torch.nn.functional.conv2d(x, moved, bias, padding=moved.shape[-1] // 2).numpy()


@pytest.mark.parametrize('name', fast(3, ROWS))
def test_outputs_are_those_of_lycoris(name):
    kind, settings, shapes = ROWS[name]
    dtype = torch.float32 if 'oft' in name else torch.float64  # LyCORIS inverts rotations in float32
    torch.manual_seed(0)
    for own in settings:
        for shape in shapes:
            straight = not name.startswith(ROUND) and 'weight_decompose' not in own
            for strength in STRENGTHS if straight else (1.0,):
                base = layer(dtype, **shape)
                x = torch.randn(2, shape['i'], *((5, 5) if 'k' in shape else ()), dtype=dtype)
                module = kind('x', base, **dict(lora_dim=4, alpha=4) | own)
                randomize(module, 2)
                module.to(dtype)
                expected = outputs(module, base, x, strength)
                found = ours(tensors_of(module), layer(dtype, **shape), x, strength)
                error = relative_error(found, expected)
                assert error < (1e-5 if dtype == torch.float32 else 1e-9), (name, own, shape, strength, error)


def test_norms_are_those_of_lycoris():
    for base, x in (
        (torch.nn.LayerNorm(8), torch.randn(3, 8)),
        (torch.nn.GroupNorm(2, 8), torch.randn(2, 8, 3, 3)),
    ):
        randomize(base, 1)
        weight, bias = (value.detach().numpy().copy() for value in (base.weight, base.bias))
        plain = type(base)(*((2, 8) if x.ndim == 4 else (8,)))
        module = norms.NormModule('x', base)
        randomize(module, 2)
        tensors = tensors_of(module)
        for strength in STRENGTHS:
            expected = outputs(module, base, x, strength)
            change = np.asarray(kinds.change(kinds.kind_of(tensors), tensors, weight))
            with torch.no_grad():
                plain.weight.copy_(torch.tensor(weight + strength * change))
                plain.bias.copy_(torch.tensor(bias + strength * tensors['b_norm']))
                assert relative_error(plain(x).numpy(), expected) < 1e-5


def test_old_glora_has_its_factors_the_other_way_round():
    normal = np.random.default_rng(0).standard_normal
    a1, a2, b1, b2, weight = normal((6, 2)), normal((2, 6)), normal((4, 2)), normal((2, 6)), normal((4, 6))
    new, old = dict(a1=a1, a2=a2, b1=b1, b2=b2), dict(a1=a2, a2=a1, b1=b2, b2=b1)
    with float64():
        both = [np.asarray(kinds.change('glora', tensors, weight)) for tensors in (new, old)]
    assert np.array_equal(*both)
    assert np.allclose(both[0], weight @ a1 @ a2 + b1 @ b2, atol=1e-12)


def test_an_alpha_of_zero_is_no_change_and_a_scale_goes_before_it():
    normal = np.random.default_rng(0).standard_normal
    tensors, weight = dict(lora_up=normal((4, 2)), lora_down=normal((2, 6))), np.zeros((4, 6))
    whole = np.asarray(kinds.change('lora', tensors, weight))
    half = kinds.change('lora', tensors | dict(alpha=np.float16(1)), weight)
    assert np.array_equal(half, whole / 2)
    assert not np.any(kinds.change('lora', tensors | dict(alpha=np.float32(0)), weight))
    scaled = kinds.change('lora', tensors | dict(alpha=np.float32(0), scale=np.float32(2)), weight)
    assert np.array_equal(scaled, whole * 2)


def test_an_adapter_of_fewer_input_channels_leaves_the_others_as_they_are():
    normal = np.random.default_rng(0).standard_normal
    tensors = dict(lora_up=normal((6, 2, 1, 1)), lora_down=normal((2, 4, 3, 3)))
    change = np.asarray(kinds.change('lora', tensors, np.zeros((6, 9, 3, 3))))
    assert np.any(change[:, :4])
    assert not np.any(change[:, 4:])


@pytest.mark.parametrize(
    ('tensors', 'message'),
    [
        (dict(lora_up=(8, 2), lora_down=(2, 11)), r'lora_down \[2, 11\], lora_up \[8, 2\] do not fit'),
        (dict(lora_up=(8, 3), lora_down=(2, 12)), 'do not fit'),
        (dict(hada_w1_a=(8, 2), hada_w1_b=(2, 5), hada_w2_a=(8, 2), hada_w2_b=(2, 5)), 'do not fit'),
        (dict(oft_blocks=(3, 3, 3)), 'do not fit'),
        (dict(diff=(8, 1)), 'do not fit'),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(tensors, message):
    tensors = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in tensors.items()}
    with pytest.raises(ValueError, match=message):
        kinds.check(kinds.kind_of(tensors), tensors, (8, 12))


def test_tensors_of_no_kind_are_named():
    with pytest.raises(ValueError, match=r"no kind of adapter has the tensors \['alpha', 'lora_up'\]"):
        kinds.kind_of(dict(lora_up=np.zeros((2, 2)), alpha=np.ones(())))
