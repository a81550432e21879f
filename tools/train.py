"""Trains a stage by its config; run again with the same workdir, it resumes.

    python tools/train.py --config configs/emoji_vae.py --workdir runs/emoji_vae [--config.run.num_steps=100]
    python tools/train.py --config configs/emoji_vae.py --dry_run

Any field of what the config names can be set by --config.FIELD=VALUE, whether its file writes it or not.

workdir gets checkpoints/, metrics.jsonl, images/ and, at the end, report.html and model/ for sampling or the next
stage. A run that has ended goes on when it is given more steps.

On several hosts each runs the same command, in a folder that they share, with --distributed; tools/launch/ starts
them. It is meant where JAX_COORDINATOR_ADDRESS is set.

On SIGTERM or Ctrl-C the state is saved; once more ends the run at once. Exit codes: 0 done; 75 stopped on request, run
it again to go on; 1 work that failed; 2 wrong use.
"""

import argparse
import os
import pathlib

from ldm_jax import command_line

MEMORY = (
    'a smaller run.batch_size, a larger run.accumulate, models.unet.remat=true, or run.parallel.kind=mesh with '
    'run.parallel.fsdp over more devices'
)


def parse():
    parser = command_line.Parser(__doc__, overrides=True, compiles=True)
    parser.add_argument(
        '--config', required=True, help='a file of configs/, or the name of one, with :VARIANT'
    )
    parser.add_argument(
        '--workdir', type=pathlib.Path, help='where checkpoints, metrics, images and the model go'
    )
    parser.add_argument(
        '--dry_run', action='store_true', help='prints config, shapes, parameters and memory; trains nothing'
    )
    parser.add_argument(
        '--allow_change',
        default='',
        metavar='FIELDS',
        help='a resumed run goes on with other values of these, such as optimizer.lr,run.num_steps',
    )
    parser.add_argument(
        '--distributed',
        action=argparse.BooleanOptionalAction,
        default='JAX_COORDINATOR_ADDRESS' in os.environ,
        help='this is one of several processes',
    )
    args = parser.parse_args()
    if args.workdir is None and not args.dry_run:
        parser.error('the following arguments are required: --workdir')
    return args


def main(args):
    import configs
    from ldm_jax.evaluation.in_training import evaluator
    from ldm_jax.training import dry_run, overrides, start
    from ldm_jax.training.parallel import distributed
    from ldm_jax.training.preemption import EXIT_CODE, Preempted, Preemption

    config = overrides.apply(configs.plain(configs.load(args.config)), args.overrides)
    if args.distributed:
        distributed.start()
    if args.dry_run:
        print(dry_run.describe(config))
        return
    with Preemption() as signals:
        try:
            allowed = tuple(filter(None, args.allow_change.split(',')))
            start.train(config, args.workdir, signals, allowed, evaluator)
        except Preempted:
            print(f'stopped; run the same command again to go on from {args.workdir}', flush=True)
            distributed.leave(EXIT_CODE)
    if args.distributed:
        distributed.leave(0)


if __name__ == '__main__':
    command_line.run(main, parse, MEMORY)
