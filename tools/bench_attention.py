"""Times attention on this machine: ours, JAX's own and, where torch is installed, torch's.

    python tools/bench_attention.py [--shapes 2x4096x4096x8x40,...] [--repeats 7] [--gradient] [--dtype bfloat16]

A shape is batch x queries x keys x heads x head width; the default ones are those of Stable Diffusion 1.5 at 512
pixels with guidance, and of its first stage. Each figure is the median of --repeats runs in milliseconds; the
ways take turns, so that whatever else the machine does falls on all of them.
"""

import statistics
import time

from ldm_jax import command_line

SD = '2x4096x4096x8x40,2x4096x77x8x40,2x1024x1024x8x80,2x1024x77x8x80,2x256x256x8x160,2x256x77x8x160,1x4096x4096x1x512'


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add = parser.add_argument
    add('--shapes', type=shapes, default=shapes(SD), help='batch x queries x keys x heads x head width, each')
    add('--repeats', type=command_line.at_least(1), default=7, help='timed runs of each way')
    add('--backends', default='auto', help='ours to time: auto,naive,chunked,cudnn,tpu')
    add('--gradient', action='store_true', help='times forward and backward together')
    add('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'], help='of q, k and v')
    return parser.parse_args()


def shapes(text):
    found = [tuple(int(size) for size in shape.split('x')) for shape in text.split(',')]
    if any(len(shape) != 5 for shape in found):
        raise ValueError(text)
    return found


def main(args):
    try:
        import torch
    except ModuleNotFoundError:
        torch = None
        print('torch is not installed: its column is left out.')
    for i, shape in enumerate(args.shapes):
        times = measure(ways(args, torch, *shape), args.repeats)
        if i == 0:
            print('milliseconds'.ljust(24) + ''.join(name.rjust(14) for name in times))
        print(
            'x'.join(map(str, shape)).ljust(24) + ''.join(f'{value:14.2f}' for value in times.values()),
            flush=True,
        )


def ways(args, torch, batch, queries, keys, heads, width):
    """Calls by name; each computes the same attention, with --gradient also its gradients, and waits for it."""
    from functools import partial

    import jax
    import numpy as np

    from ldm_jax.models.dot_product import dot_product

    draw = np.random.default_rng(0).standard_normal
    inputs = [draw((batch, tokens, heads, width), np.float32) for tokens in (queries, keys, keys, queries)]
    arrays = [jax.numpy.asarray(x, args.dtype) for x in inputs]

    def ours(function):
        def run(q, k, v, g):
            out, pull = jax.vjp(function, q, k, v)
            return (out, *pull(g)) if args.gradient else out

        compiled = jax.jit(run)
        return lambda: jax.block_until_ready(compiled(*arrays))

    def theirs():
        *qkv, g = (torch.tensor(x, dtype=getattr(torch, args.dtype)) for x in inputs)
        qkv = [x.requires_grad_(args.gradient) for x in qkv]

        def run():
            out = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv))
            out = out.transpose(1, 2).contiguous()
            return (out, *torch.autograd.grad(out, qkv, g)) if args.gradient else out

        return run

    calls = {name: ours(partial(dot_product, backend=name)) for name in args.backends.split(',')}
    calls['jax.nn'] = ours(jax.nn.dot_product_attention)
    return calls if torch is None else calls | {'torch': theirs()}


def measure(calls, repeats):
    """The median milliseconds of each call, after a first one that compiles it."""
    times = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] += [1000 * (time.perf_counter() - start)] * (turn > 0)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == '__main__':
    command_line.run(main, parse)
