"""Times attention on this machine: ours, JAX's own and, where torch is installed, torch's.

    python tools/bench_attention.py [--shapes 2x4096x4096x8x40,...] [--repeats 7] [--gradient] [--dtype bfloat16]

A shape is batch x queries x keys x heads x head width; the default ones are those of Stable Diffusion 1.5 at 512
pixels with guidance, and of its first stage. Each figure is the median of --repeats runs in milliseconds; the
ways take turns, so that whatever else the machine does falls on all of them.
"""

import statistics
import time

from absl import app, flags

SD = '2x4096x4096x8x40,2x4096x77x8x40,2x1024x1024x8x80,2x1024x77x8x80,2x256x256x8x160,2x256x77x8x160,1x4096x4096x1x512'
SHAPES = flags.DEFINE_list('shapes', SD.split(','), 'Batch x queries x keys x heads x head width, each.')
REPEATS = flags.DEFINE_integer('repeats', 7, 'Timed runs of each way.', lower_bound=1)
BACKENDS = flags.DEFINE_list('backends', ['auto'], 'Ours to time: auto, naive, chunked, cudnn, tpu.')
GRADIENT = flags.DEFINE_bool('gradient', False, 'Times forward and backward together.')
DTYPE = flags.DEFINE_string('dtype', 'float32', 'Of q, k and v, such as bfloat16.')


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'Give flags only; got {argv[1:]}.')
    try:
        import torch
    except ModuleNotFoundError:
        torch = None
        print('torch is not installed: its column is left out.')
    for i, shape in enumerate(SHAPES.value):
        if shape.count('x') != 4:
            raise app.UsageError(f'A shape is batch x queries x keys x heads x width; got {shape}.')
        times = measure(ways(torch, *map(int, shape.split('x'))))
        if i == 0:
            print('milliseconds'.ljust(24) + ''.join(name.rjust(14) for name in times))
        print(shape.ljust(24) + ''.join(f'{value:14.2f}' for value in times.values()), flush=True)


def ways(torch, batch, queries, keys, heads, width):
    """Calls by name; each computes the same attention, with --gradient also its gradients, and waits for it."""
    from functools import partial

    import jax
    import numpy as np

    from ldm_jax.models.dot_product import dot_product

    draw = np.random.default_rng(0).standard_normal
    inputs = [draw((batch, tokens, heads, width), np.float32) for tokens in (queries, keys, keys, queries)]
    arrays = [jax.numpy.asarray(x, DTYPE.value) for x in inputs]

    def ours(function):
        def run(q, k, v, g):
            out, pull = jax.vjp(function, q, k, v)
            return (out, *pull(g)) if GRADIENT.value else out

        compiled = jax.jit(run)
        return lambda: jax.block_until_ready(compiled(*arrays))

    def theirs():
        *qkv, g = (torch.tensor(x, dtype=getattr(torch, DTYPE.value)) for x in inputs)
        qkv = [x.requires_grad_(GRADIENT.value) for x in qkv]

        def run():
            out = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv))
            out = out.transpose(1, 2).contiguous()
            return (out, *torch.autograd.grad(out, qkv, g)) if GRADIENT.value else out

        return run

    calls = {name: ours(partial(dot_product, backend=name)) for name in BACKENDS.value}
    calls['jax.nn'] = ours(jax.nn.dot_product_attention)
    return calls if torch is None else calls | {'torch': theirs()}


def measure(calls):
    """The median milliseconds of each call, after a first one that compiles it."""
    times = {name: [] for name in calls}
    for turn in range(REPEATS.value + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] += [1000 * (time.perf_counter() - start)] * (turn > 0)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == '__main__':
    app.run(main)
