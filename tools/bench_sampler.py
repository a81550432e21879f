"""Times compiling a whole sampler, beside compiling one evaluation of its U-Net, from shapes alone.

    python tools/bench_sampler.py [--model sd15] [--size 512] [--samplers ddim,dpmpp_2m,euler_ancestral] [--runs 3]

The program of a sampler is the same for every number of steps. Each figure is a median of compilations that take
turns, in seconds of all cores together, which other work on the machine disturbs less than those of the clock.
Guidance doubles the batch of both. Nothing is run and no weights are made.
"""

import statistics
import time

from ldm_jax import command_line


def main(args):
    import json

    import jax
    import jax.numpy as jnp

    import configs
    from ldm_jax import denoising, trees
    from ldm_jax.diffusion.sampling import padded
    from ldm_jax.inference import guidance as guided
    from ldm_jax.inference import model as parts_of
    from ldm_jax.inference import programs
    from ldm_jax.inference.model_kinds import GUIDANCE_SCALE
    from ldm_jax.inference.settings import TABLE, Sampling

    parts = parts_of.from_settings(json.loads(configs.load(args.model).to_json()))
    shape = parts.latents(1, (args.size, args.size))
    _, _, cond = denoising.inputs_of(parts.unet, 1, shape[1])
    _, _, both = denoising.inputs_of(parts.unet, 2, shape[1])
    params = {'unet': trees.shapes(parts.unet)}
    x = jax.ShapeDtypeStruct(shape, jnp.float32)

    def evaluation():
        doubled = jax.ShapeDtypeStruct((2, *shape[1:]), jnp.float32)
        t = jax.ShapeDtypeStruct((2,), jnp.float32)
        run = jax.jit(lambda params, x, t, cond: parts.network(params)(x, t, cond))
        return run.lower(params, doubled, t, both)

    def sampler(name):
        sampling = Sampling(name)
        built, levels = sampling.plan(parts.schedule)
        keys = jax.ShapeDtypeStruct((1, 2), jnp.uint32)
        own, shared = guided.split(guided.arrays(sampling.guidance, 1, GUIDANCE_SCALE))
        images = programs.Images(x, keys, (cond, cond), own)
        job = programs.SamplerRun(images, padded(levels, TABLE), jnp.int32(20), built, shared)
        carry = jax.eval_shape(lambda job: programs.begin(parts, params, job), job)
        run = jax.jit(lambda *args: programs.advance(parts, *args))
        return run.lower(params, job, carry, jnp.int32(0), jnp.int32(20))

    jobs = {'one evaluation': evaluation}
    jobs |= {name: lambda name=name: sampler(name) for name in args.samplers.split(',')}
    found = {name: [] for name in jobs}
    for _ in range(args.runs):
        for name, lower in jobs.items():
            start = time.process_time()
            lower().compile()
            found[name].append(time.process_time() - start)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print('| program | CPU seconds to trace and compile | over one evaluation |\n|---|---|---|')
    for name, seconds in medians.items():
        print(f'| {name} | {seconds:.1f} | {seconds / medians["one evaluation"]:.2f} |')


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    parser.add_argument('--model', default='sd15', help='a config of text to image')
    parser.add_argument('--size', type=int, default=512, help='of the images, in pixels')
    parser.add_argument('--samplers', default='ddim,dpmpp_2m,euler_ancestral,heun', help='names, by commas')
    parser.add_argument('--runs', type=int, default=3)
    return parser.parse_args()


if __name__ == '__main__':
    command_line.run(main, parse)
