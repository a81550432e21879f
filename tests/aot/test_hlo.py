"""The compiler's text, read back."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.aot import hlo
from tests.aot.programs import text

F32 = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def test_a_program_is_read_with_its_types():
    module = hlo.parse(text(lambda a, b: (a @ b).astype(jnp.bfloat16), F32, F32))
    assert [p.shapes[0].dims for p in module.entry.parameters.values()] == [(8, 8), (8, 8)]
    root = module.entry.root
    assert (root.shapes[0].dtype, root.shapes[0].nbytes) == ('bf16', 128)
    assert {i.opcode for i in module.entry.instructions.values()} >= {'parameter'}
    dots = [i for c in module.computations.values() for i in c.instructions.values() if i.opcode == 'dot']
    assert [len(dot.operands) for dot in dots] == [2]


def test_how_often_loops_run():
    def nested(x):
        def inner(x, _):
            return jnp.tanh(x @ x), None

        def outer(x, _):
            return jax.lax.scan(inner, x, None, length=7)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    module = hlo.parse(text(nested, F32))

    def multiplies(instruction):
        inside = [
            i.opcode for name in instruction.calls for i in module.computations[name].instructions.values()
        ]
        return instruction.opcode == 'dot' or (instruction.opcode == 'fusion' and 'dot' in inside)

    times = [times for _, instruction, times in module.runs() if multiplies(instruction)]
    assert times == [21]
    assert module.unknown_loops() == 0


def test_loops_whose_end_shows_when_they_run_are_counted():
    def until(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 5, lambda x: x + 1, x)

    assert hlo.parse(text(until, F32)).unknown_loops() == 1


# A loop as TPUs' compiler leaves it, without a note on its length.
LOOP = """HloModule jit_f, is_scheduled=true

%body (p.1: (s32[], f32[4,4], s32[])) -> (s32[], f32[4,4], s32[]) {
  %p.1 = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}, /*index=2*/s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x = f32[4,4]{1,0:T(8,128)} get-tuple-element(%p.1), index=1
  %n = s32[]{:T(128)} get-tuple-element(%p.1), index=2
  %one = s32[]{:T(128)} constant(1)
  %j = s32[]{:T(128)} add(%i, %one)
  %y = f32[4,4]{1,0:T(8,128)} tanh(%x), metadata={op_name="jit(f)/while/body/tanh"}
  ROOT %t = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%j, %y, %n)
}

%cond (p.2: (s32[], f32[4,4], s32[])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}, s32[]{:T(128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %n.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=2
  ROOT %less = pred[]{:T(512)} compare(%i.2, %n.2), direction=LT
}

ENTRY %main (x.0: f32[4,4]) -> f32[4,4] {
  %x.0 = f32[4,4]{1,0:T(8,128)} parameter(0), metadata={op_name="state.params['w']"}
  %zero = s32[]{:T(128)} constant(2)
  %copy = s32[]{:T(128)} copy(%zero)
  %five = s32[]{:T(128)} constant(7)
  %start = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%copy, %x.0, %five)
  %loop = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}, s32[]{:T(128)}) while(%start), condition=%cond, body=%body
  ROOT %out = f32[4,4]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_without_a_note_is_read_off_its_condition():
    module = hlo.parse(LOOP)
    assert [(i.name, n) for _, i, n in module.runs() if i.opcode == 'tanh'] == [('y', 5)]
    assert module.computations['body'].instructions['y'].op_name == 'jit(f)/while/body/tanh'
    assert module.entry.root.index == 1


def test_the_step_of_a_loop_counts():
    text = LOOP.replace('%one = s32[]{:T(128)} constant(1)', '%one = s32[]{:T(128)} constant(2)')
    assert [n for _, i, n in hlo.parse(text).runs() if i.opcode == 'tanh'] == [3]  # 2, 4, 6
    # Whose constant comes in with the loop's arrays.
    from_outside = LOOP.replace('add(%i, %one)', 'add(%i, %n)')
    assert [n for _, i, n in hlo.parse(from_outside).runs() if i.opcode == 'tanh'] == [1]
    doubling = hlo.parse(LOOP.replace('add(%i, %one)', 'multiply(%i, %n)'))
    assert doubling.unknown_loops() == 1


def test_arrays_take_the_space_of_whole_tiles():
    shape = hlo.parse(LOOP).entry.instructions['x.0'].shapes[0]
    assert (shape.nbytes, shape.padded) == (64, 8 * 128 * 4)
    odd = hlo.Shape('bf16', (3, 130, 5), order=(1, 0, 2), tile=(8, 128))  # 130 lies along the lanes
    assert odd.padded == 2 * 256 * 8 * 5
    assert (hlo.Shape('pred', (3,)).nbytes, hlo.bits('s4')) == (3, 4)


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.parse('module @jit_f {}')
