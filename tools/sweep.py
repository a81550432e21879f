"""Runs an ablation: every cell of a sweep once, then table, plots, image grids and a report.

    python tools/sweep.py experiments/solvers/sweep.py --out runs/solvers [--config.cells.num_images=64]
    python tools/sweep.py experiments/solvers/sweep.py --out runs/solvers --shard 0/8

Run again it computes what is missing and reports on all that is there. --shard i/n computes every n-th group of cells
for one of n processes that share the folder, such as the tasks of a job array; when they have ended, the command
without --shard writes the report. --executor slurm or ray starts --jobs such processes and waits for them.
"""

import pathlib
import shlex
import sys

from ldm_jax import command_line

EXECUTORS = ('local', 'slurm', 'ray')


def parse():
    parser = command_line.Parser(__doc__, overrides=True, compiles=True)
    parser.add_argument('sweep', help='a file with get_config, such as experiments/solvers/sweep.py')
    parser.add_argument('--out', type=pathlib.Path, help='the folder of results; runs/NAME by default')
    parser.add_argument('--shard', help='i/n: compute one share of the cells, and write no report')
    parser.add_argument('--executor', choices=EXECUTORS, default='local', help='where cells are computed')
    parser.add_argument('--jobs', type=command_line.at_least(1), default=1, help='processes that it starts')
    parser.add_argument(
        '--executor_option',
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='of submitit (slurm_partition=gpu, timeout_min=600) or of a Ray task (num_gpus=1)',
    )
    parser.add_argument('--dry_run', action='store_true', help='print the cells and compute nothing')
    return parser.parse_args()


def main(args):
    import configs
    from ldm_jax.sweeps import command
    from ldm_jax.training.preemption import EXIT_CODE, Preempted

    sweep = command.load(configs.plain(configs.load(args.sweep)), args.overrides)
    out = args.out or pathlib.Path('runs') / pathlib.Path(args.sweep).parent.name
    if args.dry_run:
        print(command.listing(sweep, out))
        return 0
    shard = command.shard(args.shard)
    line = shlex.join([pathlib.Path(sys.executable).name, *sys.argv])
    if args.executor != 'local':
        from ldm_jax.sweeps import executors

        options = command.options(args.executor_option)
        own = [sys.executable, str(pathlib.Path(__file__).absolute()), args.sweep, '--out', str(out)]
        own += [f'{command_line.CONFIG}.{name}={value}' for name, value in args.overrides]
        executors.run(args.executor, own, args.jobs, options, out)
    try:
        return command.run(sweep, out, shard, line)
    except Preempted:
        print(f'stopped; run the same command again to go on from {out}', flush=True)
        return EXIT_CODE


if __name__ == '__main__':
    command_line.run(main, parse)
