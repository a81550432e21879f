"""Another moving average of a run that has ended, of any width: a model directory from the run's checkpoints.

    python tools/reconstruct_ema.py --workdir runs/emoji_ldm --sigma_rel 0.07 --to runs/emoji_ldm/model_070
    python tools/reconstruct_ema.py --workdir runs/emoji_ldm                    # what there is

The run's config keeps averages of power functions (run.ema, with name='power') in checkpoints along the way
(run.keep_every). They add up to an average of another relative width; the misfit that is printed says how nearly, and
the fit is good below 0.1. Paths in the config are as in the run: start it where that was started.
Ref: Karras et al. 2024, arXiv:2312.02696 (EDM2).
"""

import functools
import pathlib

from ldm_jax import command_line

POOR = 0.1  # misfit


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add = parser.add_argument
    add('--workdir', required=True, type=pathlib.Path, help="a run's workdir")
    add('--sigma_rel', type=float, help='the width that is wanted, relative to the length of training')
    add(
        '--step',
        type=command_line.at_least(1),
        help='as of this many updates, one of the kept ones; the last by default',
    )
    add('--to', help='the model directory to write; an older model there is replaced')
    args = parser.parse_args()
    if (args.sigma_rel is None) != (args.to is None):
        parser.error('--sigma_rel is the width and --to the place: give both, or neither to list')
    return args


def main(args):
    from ldm_jax.build import build
    from ldm_jax.checkpoints import loading, store
    from ldm_jax.training import ema, from_config
    from ldm_jax.training import state as train_state
    from ldm_jax.training.saving import ema_snapshots, resume_check

    if args.to is not None:
        store.check_destination(args.to)
        ema.exponent(args.sigma_rel)  # raises for an impossible width
    found = ema_snapshots.of_run(args.workdir)
    if args.to is None:
        for snapshot in found:
            print(f'{snapshot.profile.step} updates: {snapshot.name}, sigma_rel {snapshot.profile.sigma_rel}')
        return
    kept = sorted({snapshot.profile.step for snapshot in found})
    step = args.step or kept[-1]
    if step not in kept:  # the last step weighs most, and no sum of others' averages ends between theirs
        raise ValueError(f'No snapshot is of {step} updates; --step takes one of {kept}.')
    wanted = ema.Profile(step, args.sigma_rel)
    params, misfit = ema_snapshots.average(found, wanted)
    poor = '; a poor fit: keep more steps (run.keep_every)' if misfit > POOR else ''
    print(f'{len(found)} snapshots; misfit {misfit:.4f}{poor}', flush=True)
    config = resume_check.read(args.workdir)
    source = build('data', from_config.data(config, loading.load))
    stage, settings = from_config.stage(config, loading.load, source)
    params = train_state.join(params, stage.frozen)
    save = functools.partial(store.save_model, args.to)
    from_config.export(config, stage, settings, params, stage.prepare(source), save)
    print(f'model written to {args.to}')


if __name__ == '__main__':
    command_line.run(main, parse)
