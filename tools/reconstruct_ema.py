"""Another moving average of a run that has ended, of any width: a model directory from the run's checkpoints.

    python tools/reconstruct_ema.py --workdir runs/emoji_ldm --sigma_rel 0.07 --to runs/emoji_ldm/model_070
    python tools/reconstruct_ema.py --workdir runs/emoji_ldm                    # what there is

The run's config keeps averages of power functions (run.ema, with name='power') in checkpoints along the way
(run.keep_every). They add up to an average of another relative width; the misfit that is printed says how nearly, and
the fit is good below 0.1. Paths in the config are as in the run: start it where that was started.
Ref: Karras et al. 2024, arXiv:2312.02696 (EDM2).
"""

import functools
import json
import pathlib
import sys

from absl import app, flags, logging

WORKDIR = flags.DEFINE_string('workdir', None, "A run's workdir.")
SIGMA_REL = flags.DEFINE_float(
    'sigma_rel', None, 'The width that is wanted, relative to the length of training.'
)
STEP = flags.DEFINE_integer(
    'step', None, 'As of this many updates, one of the kept ones; the last by default.', lower_bound=1
)
TO = flags.DEFINE_string('to', None, 'The model directory to write; an older model there is replaced.')
flags.mark_flag_as_required('workdir')

POOR = 0.1  # misfit


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    if (SIGMA_REL.value is None) != (TO.value is None):
        raise app.UsageError('--sigma_rel says what is wanted and --to where: give both, or neither to list.')
    try:
        reconstruct()
    except (OSError, ValueError) as error:  # what the user can mend; the message says how
        sys.exit(f'error: {error}')


def reconstruct():
    from ldm_jax.build import build
    from ldm_jax.checkpoints import loading, store
    from ldm_jax.training import ema, from_config
    from ldm_jax.training import state as train_state
    from ldm_jax.training.saving import ema_snapshots, resume_check

    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its thoughts at INFO
    workdir = pathlib.Path(WORKDIR.value)
    if TO.value is not None:
        store.check_destination(TO.value)
        ema.exponent(SIGMA_REL.value)  # raises for a width that there is not
    found = ema_snapshots.of_run(workdir)
    if TO.value is None:
        for snapshot in found:
            print(f'{snapshot.profile.step} updates: {snapshot.name}, sigma_rel {snapshot.profile.sigma_rel}')
        return
    kept = sorted({snapshot.profile.step for snapshot in found})
    step = STEP.value or kept[-1]
    if step not in kept:  # the last step weighs most, and no sum of others' averages ends between theirs
        raise ValueError(f'No snapshot is of {step} updates; --step takes one of {kept}.')
    wanted = ema.Profile(step, SIGMA_REL.value)
    params, misfit = ema_snapshots.average(found, wanted)
    poor = '; a poor fit: keep more steps (run.keep_every)' if misfit > POOR else ''
    print(f'{len(found)} snapshots; misfit {misfit:.4f}{poor}', flush=True)
    config = json.loads((workdir / resume_check.CONFIG).read_text())
    source = build('data', config['data'])
    stage, settings = from_config.stage(config, loading.load, source)
    params = train_state.join(params, getattr(stage, 'frozen', {}))
    save = functools.partial(store.save_model, TO.value)
    from_config.export(config, stage, settings, params, stage.prepare(source), save)
    print(f'model written to {TO.value}')


if __name__ == '__main__':
    app.run(main)
