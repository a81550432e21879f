"""FLOPs and memory traffic of programs whose own are known."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.aot import hlo, work
from tests.aot.programs import text


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def module(function, *args):
    return hlo.parse(text(function, *args))


def test_flops_of_products_in_loops():
    def looped(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0]

    assert work.flops(module(looped, array(32, 64), array(64, 64))) == 5 * 2 * 32 * 64 * 64


def convolve(x, w, stride, padding):
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def test_flops_of_convolutions_leave_the_padding_out():
    found = work.flops(
        module(lambda x, w: convolve(x, w, 1, 'VALID'), array(2, 10, 10, 8), array(3, 3, 8, 16))
    )
    assert found == 2 * 2 * 8 * 8 * 16 * 9 * 8
    # The first of the 3 x 10 places along a side, and the last, lie in the padding.
    found = work.flops(
        module(lambda x, w: convolve(x, w, 1, 'SAME'), array(2, 10, 10, 8), array(3, 3, 8, 16))
    )
    assert found == 2 * 2 * 16 * 8 * 28**2


def test_gradients_of_a_convolution_cost_as_much_as_it_does():
    def gradients(x, w):
        return jax.grad(lambda x, w: jnp.sum(convolve(x, w, 2, 'VALID') ** 2), (0, 1))(x, w)

    forward = 2 * 2 * 16 * 8 * (5 * 3) ** 2  # 5 outputs of 3 places each, every second of 11
    args = array(2, 11, 11, 8), array(3, 3, 8, 16)
    assert work.flops(module(gradients, *args)) == pytest.approx(3 * forward)


def test_traffic_is_what_fusions_read_and_write():
    found = work.traffic(module(lambda a, b: jnp.tanh(a * b + 1), array(256, 128), array(256, 128)))
    assert found == 3 * 256 * 128 * 4


TPU = """HloModule jit_f, is_scheduled=true

%slice (p0: f32[16,8,128], p1: s32[]) -> f32[8,128] {
  %p0 = f32[16,8,128]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %z = s32[]{:T(128)} constant(0)
  %part = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1, %z, %z), dynamic_slice_sizes={1,8,128}
  ROOT %flat = f32[8,128]{1,0:T(8,128)} bitcast(%part)
}

%update (p2: f32[16,8,128], p3: f32[8,128], p4: s32[]) -> f32[16,8,128] {
  %p2 = f32[16,8,128]{2,1,0:T(8,128)} parameter(0)
  %p3 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %p4 = s32[]{:T(128)} parameter(2)
  %z.1 = s32[]{:T(128)} constant(0)
  %row = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%p3)
  ROOT %new = f32[16,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%p2, %row, %p4, %z.1, %z.1)
}

ENTRY %main (a: f32[16,8,128], i: s32[]) -> f32[16,8,128] {
  %a = f32[16,8,128]{2,1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %x = f32[8,128]{1,0:T(8,128)S(1)} fusion(%a, %i), kind=kLoop, calls=%slice
  %y = f32[8,128]{1,0:T(8,128)} tanh(%x)
  ROOT %b = f32[16,8,128]{2,1,0:T(8,128)} fusion(%a, %y, %i), kind=kLoop, calls=%update
}
"""


def test_slices_count_as_what_they_are_and_memory_on_the_chip_is_free():
    row = 8 * 128 * 4
    # One row is read into the chip's own memory, one written from there, one read and written into the whole.
    assert work.traffic(hlo.parse(TPU)) == row + row + 2 * row
