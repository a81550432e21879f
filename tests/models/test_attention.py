"""Every way to compute attention meets the same float64 oracle; 'auto' takes the way it says; memory stays small."""

import contextlib
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ldm_jax.models import dot_product as attention
from ldm_jax.models import fused_attention
from ldm_jax.models.attention import Attention
from tests import oracles
from tests.tiers import fast

SMALL = [  # B, L, M, N, K, causal: one query, ragged blocks, L on either side of M
    (2, 1, 77, 3, 8, False),
    (2, 64, 77, 3, 8, False),
    (1, 53, 20, 1, 5, True),
    (2, 20, 53, 1, 5, True),
]


def random(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def operands(b, length, keys, n, width, scale=1.0):
    """q, k, v and the cotangent of the output."""
    shapes = [(b, tokens, n, width) for tokens in (length, keys, keys, length)]
    return [random(*shape, seed=seed, scale=scale) for seed, shape in enumerate(shapes)]


def oracle(q, k, v, g, causal=False):
    """The output and the gradients of q, k and v, by the formulas, in float64."""
    q, k, v, g = (np.swapaxes(np.asarray(x, np.float64), 1, 2) for x in (q, k, v, g))
    scale = q.shape[-1] ** -0.5
    scores = scale * q @ np.swapaxes(k, -1, -2)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    back = g @ np.swapaxes(v, -1, -2)
    back = scale * weights * (back - (back * weights).sum(-1, keepdims=True))
    results = weights @ v, back @ k, np.swapaxes(back, -1, -2) @ q, np.swapaxes(weights, -1, -2) @ g
    return [np.swapaxes(x, 1, 2) for x in results]


def with_gradients(function, q, k, v, g, causal=False):
    out, pull = jax.vjp(lambda *qkv: function(*qkv, causal), q, k, v)
    return [out, *pull(g.astype(out.dtype))]


def assert_close(ours, theirs, tolerance):
    for name, a, b in zip(('out', 'dq', 'dk', 'dv'), ours, theirs, strict=False):
        assert oracles.relative_error(a, b) < tolerance, name


def as_elsewhere(monkeypatch):
    """Gives chunked the form that it has on other platforms than the CPU."""
    monkeypatch.setattr(attention.lax, 'platform_dependent', lambda *x, default, **others: default(*x))


@pytest.fixture(params=['naive', 'by_heads', 'by_rows'])
def plain(request, monkeypatch):
    """naive and both forms of chunked, with blocks that the small shapes do not divide into."""
    if request.param == 'naive':
        return attention.naive
    monkeypatch.setattr(attention, 'CPU_GROUP', 2000)
    monkeypatch.setattr(attention, 'CPU_BLOCK', 700)
    monkeypatch.setattr(attention, 'BLOCK', 2000)
    if request.param == 'by_rows':
        as_elsewhere(monkeypatch)
    return attention.chunked


@pytest.mark.parametrize('case', fast(3, SMALL, single=True), ids=str)
def test_plain_ways_and_their_gradients_are_exact(plain, case):
    *shape, causal = case
    inputs = operands(*shape)
    with oracles.float64():
        ours = jax.jit(lambda *x: with_gradients(plain, *x, causal))(*inputs)
    assert ours[0].dtype == jnp.float64
    assert_close(ours, oracle(*inputs, causal), 1e-12)


def test_masked_keys_are_as_if_they_were_not_there(plain):
    q, k, v, g = operands(2, 20, 53, 2, 5)
    mask = np.ones((2, 53), bool)
    mask[0, 30:], mask[1, 10:20] = False, False
    with oracles.float64():
        ours = jax.jit(lambda *x: with_gradients(lambda q, k, v, causal: plain(q, k, v, causal, mask), *x))(
            q, k, v, g
        )
    for i, seen in enumerate(mask):
        expected = oracle(*(x[i : i + 1] for x in (q,)), k[i : i + 1, seen], v[i : i + 1, seen], g[i : i + 1])
        found = [ours[0][i], ours[1][i], ours[2][i, seen], ours[3][i, seen]]
        assert_close(found, [each[0] for each in expected], 1e-12)
        assert not np.any([ours[2][i, ~seen], ours[3][i, ~seen]])


def test_a_mask_of_another_shape_is_refused():
    q, k, v, _ = operands(1, 4, 6, 2, 4)
    with pytest.raises(ValueError, match=r'A mask is bool \[B, M\] = \[1, 6\]; got int32 \[1, 6\]'):
        attention.dot_product(q, k, v, mask=jnp.ones((1, 6), jnp.int32))


def test_plain_ways_are_differentiated_forwards_and_twice(plain):
    *qkv, g = operands(1, 9, 11, 2, 4)
    tangents = [random(*x.shape, seed=9) for x in qkv]

    def slope(*qkv):
        return jax.grad(lambda *x: jnp.sum(g * plain(*x, True)))(*qkv)

    with oracles.float64():
        _, curvature = jax.jvp(slope, tuple(qkv), tuple(tangents))
    ahead, behind = (
        oracle(*(x + step * t for x, t in zip(qkv, tangents, strict=True)), g, True)[1]
        for step in (1e-5, -1e-5)
    )
    assert oracles.relative_error(curvature, (ahead - behind) / 2e-5) < 1e-8


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_scores_in_the_thousands_do_not_overflow_and_keep_their_order(plain, dtype):
    # Before scaling they reach 40,000: in bfloat16 they would be ties, in float16 often infinite.
    inputs = [jnp.asarray(x, dtype) for x in operands(1, 40, 77, 2, 16, scale=30.0)]
    ours = jax.jit(lambda *x: with_gradients(plain, *x))(*inputs)
    assert all(x.dtype == dtype and jnp.isfinite(x.astype(jnp.float32)).all() for x in ours)
    assert oracles.relative_error(ours[0], oracle(*inputs)[0]) < 4 * jnp.finfo(dtype).eps


def test_bfloat16_loses_its_own_rounding_and_no_more(plain):
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in operands(1, 40, 77, 2, 16)]
    ours = jax.jit(lambda *x: with_gradients(plain, *x))(*inputs)
    assert_close(ours, oracle(*inputs), 2 * jnp.finfo(jnp.bfloat16).eps)


def sizes(function, *shapes):
    """Numbers in the program's largest value, and the bytes that its compiled form holds at once."""
    program = jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    values = re.findall(r'tensor<((?:\d+x)+)f32>', program.as_text())
    largest = max(math.prod(int(side) for side in value.split('x')[:-1]) for value in values)
    return largest, program.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize('form', ['by_heads', 'by_rows'])
def test_long_sequences_never_hold_the_score_matrix(form, monkeypatch):
    if form == 'by_rows':
        as_elsewhere(monkeypatch)
        monkeypatch.setattr(attention, 'BLOCK', 2**20)
    shapes = [(1, 8192, 2, 8)] * 4
    scores = 2 * 8192**2  # 512 MB
    for largest, held in (
        sizes(lambda *x: attention.chunked(*x, False), *shapes[:3]),
        sizes(lambda *x: with_gradients(attention.chunked, *x), *shapes),
    ):
        assert largest <= 2**20
        assert held < 4 * scores / 20
    # Both measures see the matrix where there is one.
    largest, held = sizes(lambda *x: with_gradients(attention.naive, *x), *shapes)
    assert largest == scores
    assert held >= 4 * scores


def test_a_mesh_of_more_devices_does_not_shorten_the_blocks_of_each(monkeypatch):
    as_elsewhere(monkeypatch)
    monkeypatch.setattr(attention, 'BLOCK', 2000)
    mesh = jax.make_mesh((2, 4), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2).abstract_mesh

    def steps(batch):
        shapes = [jax.ShapeDtypeStruct((batch, 40, 2, 4), jnp.float32)] * 3
        program = jax.make_jaxpr(lambda *x: attention.chunked(*x, False))(*shapes)
        return [eqn.params['length'] for eqn in program.eqns if eqn.primitive.name == 'scan']

    alone = steps(2)
    assert alone == [4]  # 40 rows, 12 at once: 2 x 2 x 12 x 40 scores
    assert steps(16) == [40]
    with jax.sharding.use_abstract_mesh(mesh):
        assert steps(16) == alone


@pytest.mark.parametrize('plain', ['by_heads', 'by_rows'], indirect=True)
@pytest.mark.parametrize('transform', fast(1, ['pmap', 'vmap', 'mesh']))
def test_vmap_pmap_and_a_mesh_change_nothing(plain, transform):
    inputs = [jnp.asarray(random(8, 2, 21, 2, 4, seed=seed), jnp.float32) for seed in range(4)]

    def run(*x):
        return with_gradients(plain, *x, True)

    if transform == 'mesh':  # the batch over eight devices, partitioned by XLA
        batch = NamedSharding(
            jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,)), PartitionSpec('data')
        )
        merged = [x.reshape(16, 21, 2, 4) for x in inputs]
        ours = jax.jit(run, in_shardings=batch, out_shardings=batch)(*merged)
        ours = [x.reshape(8, 2, 21, 2, 4) for x in ours]
    else:
        ours = {'vmap': lambda f: jax.jit(jax.vmap(f)), 'pmap': jax.pmap}[transform](run)(*inputs)
    for i in (0, 7):
        assert_close([x[i] for x in ours], oracle(*(x[i] for x in inputs), True), 1e-5)


@pytest.fixture
def interpreted(monkeypatch):
    """Pallas' kernels as plain XLA, which any platform and any number of devices runs."""
    monkeypatch.setattr(pallas, 'pallas_call', partial(pallas.pallas_call, interpret=True))


MESHES = [dict(data=2, fsdp=2, tensor=2), dict(data=8), dict(tensor=4, fsdp=2)]


@pytest.mark.usefixtures('interpreted')
@pytest.mark.parametrize('axes', MESHES, ids=str)
def test_each_device_of_a_mesh_runs_the_kernel_on_its_share(axes):
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))
    inputs = [jnp.asarray(x, jnp.float32) for x in operands(8, 130, 77, 4, 40)]
    shares = []

    def kernel(q, k, v):
        shares.append(q.shape)
        return fused_attention.tpu(q, k, v, causal=False)

    def run(*x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return with_gradients(lambda q, k, v, _: fused_attention.on_mesh(kernel, q)(q, k, v), *x)

    heads = axes.get('tensor', 1)
    cut = PartitionSpec(tuple(a for a in axes if a != 'tensor'), None, 'tensor' if heads > 1 else None)
    sharding = NamedSharding(mesh, cut)
    program = jax.jit(run, in_shardings=sharding, out_shardings=sharding).lower(*inputs).compile()
    assert_close(program(*inputs), oracle(*inputs), 1e-5)
    assert set(shares) == {(8 * heads // 8, 130, 4 // heads, 40)}
    assert not re.search('all-gather|all-reduce|all-to-all|collective-permute', program.as_text())


def test_a_kernel_stands_on_a_mesh_only_where_the_mesh_divides_examples_and_heads():
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        for shape in [(2, 8, 2, 4), (4, 8, 3, 4)]:
            assert fused_attention.on_mesh(None, jnp.ones(shape)) is None
            with pytest.raises(ValueError, match="'tpu' needs a TPU.*'auto'"):
                attention.dot_product(*[jnp.ones(shape)] * 3, backend='tpu')
    alone = jax.make_mesh((1, 1, 1), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(alone.abstract_mesh):
        assert fused_attention.on_mesh(max, jnp.ones((3, 8, 5, 4))) is max


@pytest.mark.slow
@pytest.mark.parametrize(
    ('length', 'keys', 'width', 'causal'),
    [(130, 77, 40, False), (150, 140, 160, True)],  # padded queries, keys and, above 128, widths
)
def test_the_tpu_kernel_interpreted(length, keys, width, causal):
    inputs = [jnp.asarray(x, jnp.float32) for x in operands(1, length, keys, 1, width)]
    with pltpu.force_tpu_interpret_mode():
        ours = jax.jit(lambda *x: with_gradients(fused_attention.tpu, *x, causal))(*inputs)
    assert_close(ours, oracle(*inputs, causal), 1e-5)


def lowered(platform, *shapes, dtype=jnp.bfloat16, gradient=False, replicas=None, check_vma=False, mesh=None):
    """The program that 'auto' becomes on a platform that is not here; over replicas, as pmap makes them, or for the
    compiler to partition over a mesh."""

    def run(*qkv):
        if gradient:
            return jax.grad(lambda *x: jnp.sum(attention.dot_product(*x).astype(jnp.float32)), (0, 1, 2))(
                *qkv
            )
        return attention.dot_product(*qkv)

    if replicas:
        mesh = jax.make_mesh((replicas,), ('data',), axis_types=(AxisType.Auto,))
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=PartitionSpec('data'),
            out_specs=PartitionSpec('data'),
            check_vma=check_vma,
        )
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in (shapes[0], shapes[-1], shapes[-1])]
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext():
        return jax.jit(run).trace(*inputs).lower(lowering_platforms=(platform,)).as_text()


@pytest.fixture
def cuda(monkeypatch):
    """A process that takes itself for one with an NVIDIA GPU; it can lower programs for it."""
    kernels = pytest.importorskip('jax._src.cudnn.fused_attention_stablehlo')
    monkeypatch.setattr(kernels, 'check_cudnn_version', lambda: 91000)
    monkeypatch.setattr(fused_attention, 'no_cudnn', lambda: None)
    monkeypatch.setattr(fused_attention, '_cudnn_width', lambda: 128)


def test_auto_is_naive_for_short_sequences_and_chunked_for_long_ones():
    assert 'stablehlo.while' not in lowered('cpu', (2, 64, 8, 40), (2, 77, 8, 40))
    assert 'stablehlo.while' not in lowered('cpu', (512, 64, 8, 40))
    assert 'stablehlo.while' in lowered('cpu', (2, 1024, 8, 40))
    assert 'stablehlo.while' in lowered('cuda', (2, 4096, 8, 40), dtype=jnp.float32)


@pytest.mark.parametrize('width', [40, 160])
def test_auto_takes_the_tpu_kernel_inside_a_replica(width):
    calls = re.findall('tpu_custom_call', lowered('tpu', (8, 1024, 1, width), gradient=True, replicas=8))
    assert len(calls) == 3  # forward, then the gradients of k and v, and of q


def test_auto_takes_the_kernels_under_jit_over_a_mesh(cuda):
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
    calls = re.findall('tpu_custom_call', lowered('tpu', (8, 1024, 8, 40), gradient=True, mesh=mesh))
    assert len(calls) == 3
    assert 'tpu_custom_call' not in lowered('tpu', (1, 1024, 8, 40), mesh=mesh)  # an example for four devices
    program = lowered('cuda', (8, 1024, 8, 64), (8, 77, 8, 64), gradient=True, mesh=mesh)
    assert '__cudnn$fmhaSoftmaxBackward' in program
    assert '__cudnn' not in lowered('cuda', (8, 1024, 9, 64), mesh=mesh)


def test_auto_leaves_the_tpu_kernel_where_it_cannot_run_or_does_not_pay():
    assert 'tpu_custom_call' not in lowered('tpu', (8, 4096, 1, 64))  # XLA may have to partition this one
    assert 'tpu_custom_call' not in lowered('tpu', (8, 4096, 1, 64), replicas=8, check_vma=True)
    assert 'tpu_custom_call' not in lowered('tpu', (8, 4096, 8, 64), (8, 77, 8, 64), replicas=8)
    assert 'tpu_custom_call' not in lowered('cpu', (8, 4096, 1, 64), replicas=8)


@pytest.mark.usefixtures('cuda')
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_auto_takes_cudnn_for_half_precision(dtype):
    assert '__cudnn$fmhaSoftmax' in lowered('cuda', (2, 64, 8, 40), (2, 77, 8, 40), dtype=dtype)
    assert '__cudnn$fmhaSoftmaxBackward' in lowered('cuda', (2, 4096, 8, 128), dtype=dtype, gradient=True)


@pytest.mark.usefixtures('cuda')
@pytest.mark.parametrize(('length', 'keys'), [(64, 77), (77, 77), (77, 64)])
def test_cudnn_has_gradients_of_odd_numbers_of_tokens_too(length, keys, monkeypatch):
    shapes = (2, length, 8, 40), (2, keys, 8, 40)
    assert '__cudnn$fmhaSoftmaxBackward' in lowered('cuda', *shapes, gradient=True)
    # The padding that it takes, computed by JAX's plain way with the same lengths.
    plain = jax.nn.dot_product_attention
    monkeypatch.setattr(
        jax.nn, 'dot_product_attention', lambda *x, **k: plain(*x, **k | {'implementation': 'xla'})
    )
    for causal in (False, True):
        inputs = [jnp.asarray(x, jnp.float32) for x in operands(2, length, keys, 2, 8)]
        ours = with_gradients(fused_attention.cudnn, *inputs, causal)
        assert_close(ours, oracle(*inputs, causal), 1e-5)


@pytest.mark.usefixtures('cuda')
def test_auto_leaves_cudnn_what_it_does_not_have():
    assert '__cudnn' not in lowered('cuda', (2, 1024, 8, 64), dtype=jnp.float32)  # not cast: exactness first
    assert '__cudnn' not in lowered('cuda', (1, 1024, 1, 512))
    assert '__cudnn' not in lowered('cuda', (2, 64, 8, 36))
    assert '__cudnn' not in lowered('cpu', (2, 64, 8, 40))


def test_dot_product_computes_each_backend_that_it_names():
    inputs = [jnp.asarray(x, jnp.float32) for x in operands(2, 12, 9, 2, 4)]
    for backend in ('auto', 'naive', 'chunked'):
        out = attention.dot_product(*inputs[:3], causal=True, backend=backend)
        assert oracles.relative_error(out, oracle(*inputs, True)[0]) < 1e-6


def test_errors_name_the_value_and_the_way_out():
    q = jnp.ones((1, 8, 2, 4))
    with pytest.raises(ValueError, match=r"attention backend 'chunk'.*naive.*Did you mean 'chunked'"):
        Attention(2, 4, 8, backend='chunk').init(jax.random.key(0), jnp.ones((1, 8, 8)))
    with pytest.raises(
        ValueError, match=r"'cudnn' needs an NVIDIA GPU, and this process runs on 'cpu'.*'auto'"
    ):
        attention.dot_product(q, q, q, backend='cudnn')
    with pytest.raises(ValueError, match=r"'tpu' needs a TPU, and this process runs on 'cpu'.*'auto'"):
        attention.dot_product(q, q, q, backend='tpu')
    for k, v in [(q[:, :, :1], q[:, :, :1]), (q, q[:, :4]), (q[..., :2], q[..., :2]), (q[0], q[0])]:
        with pytest.raises(ValueError, match=r'takes q \[B, L, N, K\] and k, v'):
            attention.dot_product(q, k, v)
