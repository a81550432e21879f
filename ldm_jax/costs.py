"""What one evaluation of a network costs, read off its traced program: nothing is run, no memory is taken.

multiply-adds   of matrix products and convolutions, attention's two products included, as papers count them;
                norms, activations, softmax and biases are left out. One multiply-add is two FLOPs.
peak bytes      the most that the intermediate values alive at one time hold, when the operations run in
                program order, the CPU's where platforms differ, and each writes a new buffer. A compiler
                that fuses needs less, one that changes layouts more; parameters and inputs are not counted.
output bytes    of all layers with parameters together: the least that training keeps for the backward pass
                when nothing is rematerialised.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from ldm_jax import trees
from ldm_jax.denoising import inputs_of

Outputs = tuple[jax.ShapeDtypeStruct, ...]  # the arrays that a module's __call__ returns


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module's own parameters and multiply-adds: those of the modules inside it are theirs."""

    path: str  # 'down_0_res_0/conv1'; '' is the network itself
    output: Outputs
    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one evaluation of a network costs."""

    layers: tuple[Layer, ...]  # in order of call; together they are the whole
    peak_bytes: int

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def output_bytes(self) -> int:
        return sum(map(_nbytes, (array for layer in self.layers if layer.params for array in layer.output)))


def cost(model: nn.Module, inputs: tuple | None = None) -> Cost:
    """Counts one evaluation of a model.

    Args:
        model: a Model of ldm_jax/models.
        inputs: shapes of `__call__`'s arguments (jax.ShapeDtypeStruct, or pytrees of them); by default
            those that it says (trees.init).

    Raises:
        ValueError: the program holds products that cannot be counted, in a fused kernel or in a loop of
            unknown length, or the model does not take these inputs.
    """
    inputs = inputs_of(model) if inputs is None else inputs
    # Attention in blocks multiplies padding too, and a fused kernel hides its products: count the plain one.
    plain = model.clone(attention_backend='naive') if hasattr(model, 'attention_backend') else model
    outputs: dict[str, Outputs] = {}

    def record(method, args, kwargs, context):
        path = '/'.join(context.module.path)
        outputs.setdefault(path, ())  # on entry, so that the order is that of the calls
        out = method(*args, **kwargs)
        if context.method_name == '__call__':
            outputs[path] = tuple(
                jax.ShapeDtypeStruct(array.shape, array.dtype) for array in jax.tree.leaves(out)
            )
        return out

    def initialize(key, *args):  # also evaluates once; drawing parameters multiplies no matrices
        with nn.intercept_methods(record):
            return plain.init_with_output(key, *args)

    program, (_, variables) = jax.make_jaxpr(initialize, return_shape=True)(jax.random.key(0), *inputs)
    variables = nn.meta.unbox(variables)
    macs = _macs(program.jaxpr, outputs)
    params = collections.Counter()
    for name, leaf in trees.named(variables.get('params', {})).items():
        params[name.rpartition('/')[0]] += leaf.size
    layers = tuple(Layer(path, output, params[path], macs[path]) for path, output in outputs.items())
    return Cost(layers, _peak_bytes(jax.make_jaxpr(model.apply)(variables, *inputs).jaxpr))


def program_macs(program: ClosedJaxpr) -> int:
    """Multiply-adds of a traced program, such as jax.jit(f).trace(x).jaxpr, gradients included.

    Raises ValueError where they cannot be counted, as `cost` does.
    """
    return _macs(program.jaxpr, {}).total()


def folded(layers: tuple[Layer, ...], depth: int) -> list[Layer]:
    """Modules deeper than `depth` added to the one that holds them; rows without any cost are left out."""
    rows: dict[str, Layer] = {}
    for layer in layers:
        path = '/'.join(layer.path.split('/')[:depth])
        # A module is recorded before those inside it, so the first of a row is the row's own.
        row = rows.get(path, Layer(path, layer.output, 0, 0))
        rows[path] = dataclasses.replace(row, params=row.params + layer.params, macs=row.macs + layer.macs)
    return [row for row in rows.values() if row.params or row.macs]


def report(cost: Cost, depth: int) -> dict[str, Any]:
    """A cost as plain data, for JSON; its layers folded to depth."""
    layers = [
        dict(path=row.path, output=[array.shape for array in row.output], params=row.params, macs=row.macs)
        for row in folded(cost.layers, depth)
    ]
    totals = {name: getattr(cost, name) for name in ('params', 'macs', 'peak_bytes', 'output_bytes')}
    return dict(**totals, flops=2 * cost.macs, layers=layers)


def table(cost: Cost, depth: int) -> str:
    """A cost as text: a line for each layer, folded to depth, then the totals."""
    rows = [('layer', 'output', 'parameters', 'GMACs')]
    for row in folded(cost.layers, depth):
        output = ', '.join('x'.join(map(str, array.shape)) or 'scalar' for array in row.output)
        rows.append((row.path or '(itself)', output, f'{row.params:,}', f'{row.macs / 1e9:,.4f}'))
    rows.append(('total', '', f'{cost.params:,}', f'{cost.macs / 1e9:,.4f}'))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f'{path:{widths[0]}}  {output:{widths[1]}}  {params:>{widths[2]}}  {macs:>{widths[3]}}'
        for path, output, params, macs in rows
    ]
    lines.append(
        f'{2 * cost.macs / 1e9:,.1f} GFLOPs an evaluation; activations {cost.peak_bytes / 2**20:,.1f} MiB'
    )
    lines[-1] += f' at the peak, all layer outputs {cost.output_bytes / 2**20:,.1f} MiB'
    return '\n'.join(lines)


def _macs(jaxpr: Jaxpr, modules: Mapping[str, Outputs], path: str = '') -> collections.Counter[str]:
    """Multiply-adds by module path of a program that was traced inside the module at `path`."""
    found: collections.Counter[str] = collections.Counter()
    for eqn in jaxpr.eqns:
        here = _module(eqn, modules, path)
        name = eqn.primitive.name
        if name == 'dot_general':
            (contracted, _), _ = eqn.params['dimension_numbers']
            left: Any = eqn.invars[0].aval
            made: Any = eqn.outvars[0].aval
            found[here] += made.size * math.prod(left.shape[axis] for axis in contracted)
        elif name == 'conv_general_dilated':
            kernel: Any = eqn.invars[1].aval
            made = eqn.outvars[0].aval
            features = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
            found[here] += made.size * (kernel.size // features)
        elif name in ('pallas_call', 'ffi_call'):
            raise ValueError(
                f'Module {here!r} calls a kernel through {name}, whose products cannot be counted. '
                'Give its model a plain way to compute the same, and count that.'
            )
        else:
            bodies = [_macs(body, modules, here) for body in _bodies(eqn)]
            if name == 'while' and any(body.total() for body in bodies):
                raise ValueError(
                    f'Module {here!r} multiplies matrices in a while loop, whose length shows when it runs. '
                    'Write it as a scan, or as a fori_loop with fixed bounds.'
                )
            if name == 'cond':  # one branch runs: count the dearest
                bodies = [max(bodies, key=collections.Counter.total)]
            for body in bodies:
                for inner, count in body.items():
                    found[inner] += count * (eqn.params['length'] if name == 'scan' else 1)
    return found


def _module(eqn: JaxprEqn, modules: Mapping[str, Outputs], path: str) -> str:
    """The path of the innermost module that an operation belongs to.

    The name stack continues that of the enclosing operation, and holds methods and transformations too.
    """
    for part in str(eqn.source_info.name_stack).split('/'):
        inner = f'{path}/{part}' if path else part
        path = inner if inner in modules else path
    return path


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """Programs inside an operation: a called function, a loop's body, branches (of platforms: the CPU's)."""
    platforms = eqn.params.get('branches_platforms')
    if platforms:
        chosen = next(i for i, names in enumerate(platforms) if names is None or 'cpu' in names)
        yield eqn.params['branches'][chosen].jaxpr
        return
    for value in eqn.params.values():
        for item in value if isinstance(value, list | tuple) else (value,):
            item = getattr(item, 'jaxpr', item)
            if isinstance(item, Jaxpr):
                yield item


def _peak_bytes(jaxpr: Jaxpr) -> int:
    last = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.invars if not isinstance(var, Literal)}
    kept = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    own: set = set()  # values made here and alive: neither inputs nor constants
    alive = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        inside = max(map(_peak_bytes, _bodies(eqn)), default=0)
        made = sum(_nbytes(var.aval) for var in eqn.outvars)
        # A loop's body makes one slice after another of what the loop returns; a call makes just that.
        peak = max(peak, alive + (made + inside if eqn.primitive.name == 'scan' else max(made, inside)))
        alive += made
        own.update(eqn.outvars)
        read = {var for var in eqn.invars if not isinstance(var, Literal)}
        for var in (read | set(eqn.outvars)) & own:
            if last.get(var, i) <= i and var not in kept:
                own.remove(var)
                alive -= _nbytes(var.aval)
    return peak


def _nbytes(array) -> int:
    return array.size * array.dtype.itemsize
