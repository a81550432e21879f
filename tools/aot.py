"""Compiles a config's training step, or its sampler, for a TPU slice that need not be there, and says what it needs.

    python tools/aot.py --config configs/train_sd15.py --topology v5e-256 [--batch 8] [--what sample] [--json]

It needs libtpu (pip install 'ldm_jax[tpu]'), no TPU and no weights: everything is made from shapes. Topologies are
named as in the cloud (v5e-16, v5p-128, v6e-256, v4-32) or by their sides (v5p:4x4x12). The step of a model of a billion
parameters compiles in minutes, in 6 to 16 GB of memory.

Exit codes: 0 it fits, 1 it does not, or an error; 2 a wrong flag.
"""

import json
import os
import sys

from ldm_jax import command_line

MEMORY = 'a smaller --batch, or a smaller model, or more memory on this machine, which compiles'


def parse():
    parser = command_line.Parser(__doc__, overrides=True)
    add = parser.add_argument
    add('--config', required=True, help='the training run: a file or name of configs/, with :VARIANT')
    add('--topology', required=True, help='the slice: v5e-16, v5p-128, v6e-256, v5p:4x4x12, ...')
    add('--what', default='train', choices=['train', 'sample'], help='the training step, or the sampler')
    add('--batch', type=command_line.at_least(1), help='images of a chip at once, for run.batch_size')
    add('--sampler', default='dpmpp_2m', help='with --what sample')
    add('--num_steps', type=command_line.at_least(1), default=25, help='with --what sample')
    add('--effort', default='O1', choices=['O1', 'O2', 'O3'], help='O1 compiles in half the time of O2')
    add('--hlo', help='a file to write the compiled program to, as text')
    add('--json', action='store_true', help='plain data instead of tables')
    return parser.parse_args()


def main(args):
    import configs

    # The host's own devices are not asked for: libtpu would look for TPUs.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    from ldm_jax.aot import topology
    from ldm_jax.training import overrides

    slice_ = topology.named(args.topology)
    config = overrides.apply(configs.plain(configs.load(args.config)), args.overrides)
    topology.check_compiler()
    import jax

    from ldm_jax.aot import programs, report

    jax.config.update('jax_optimization_level', args.effort)
    # Such programs can be written to it and not read.
    jax.config.update('jax_enable_compilation_cache', False)
    print(f'tracing for {slice_.chips} chips', file=sys.stderr, flush=True)
    if args.what == 'train':
        program = programs.train(config, slice_.devices(), args.batch)
    else:
        program = programs.sample(
            config, slice_.devices(), args.batch or 1, sampler=args.sampler, num_steps=args.num_steps
        )
    print('compiling', file=sys.stderr, flush=True)
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise ValueError(
            f'It does not fit on {slice_.name}: {str(error).splitlines()[0]} Take a smaller --batch, more of '
            'run.parallel.fsdp, models.unet.remat, or a larger slice.'
        ) from error
    if args.hlo:
        with open(args.hlo, 'w') as file:
            file.write(compiled.as_text())
    found = report.of(program, compiled, slice_)
    print(json.dumps(report.data(found), indent=2) if args.json else report.table(found))


if __name__ == '__main__':
    command_line.run(main, parse, MEMORY)
