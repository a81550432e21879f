"""Each solver against Euler and against the best, all on their best grid for the number of evaluations.

    python experiments/solvers/pairs.py --out runs/solvers

Reads what tools/sweep.py computed there and writes pairs.csv beside it: a row for each solver and number of
evaluations, with the mean errors, and the differences to Euler's error (`over_euler`) and to the best solver's
(`over_best`) with their intervals of 95 %, paired over images.
"""

import csv
import io
import pathlib

import configs
from ldm_jax import atomic, command_line

OVERS = tuple(f'{name}{end}' for name in ('over_euler', 'over_best') for end in ('', '_low', '_high'))
FIELDS = ('evaluations', 'solver', 'grid', 'error', 'low', 'high', *OVERS, 'images')


def pairs(rows):
    """One line of FIELDS for each solver and budget that rows of the sweep hold."""
    from ldm_jax.sweeps.definition import short
    from ldm_jax.sweeps.statistics import difference

    best = {}
    for row in rows:
        place = row.settings['evaluations'], short(row.settings['sampler'])
        if place not in best or row.numbers['error'].value < best[place].numbers['error'].value:
            best[place] = row
    lines = []
    for (budget, solver), row in sorted(best.items()):
        rivals = [best[place].numbers['error'] for place in best if place[0] == budget]
        euler, first = best.get((budget, 'euler')), min(rivals, key=lambda each: each.value)
        if euler is None:
            continue
        error = row.numbers['error']
        overs = [difference(error, euler.numbers['error']), difference(error, first)]
        numbers = [value for each in (error, *overs) for value in (each.value, *each.interval)]
        line = [budget, solver, row.settings['grid'], *(f'{value:.6g}' for value in numbers), error.count]
        lines.append(line)
    return lines


def main(args):
    from ldm_jax.sweeps import command, statistics
    from ldm_jax.sweeps.results import Results

    sweep = command.load(configs.plain(configs.load(args.sweep)), args.overrides)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([FIELDS, *pairs(statistics.rows(sweep, Results(args.out)))])
    atomic.write(args.out / 'pairs.csv', text.getvalue())
    print(f'written: {args.out / "pairs.csv"}')


def parse():
    parser = command_line.Parser(__doc__, overrides=True)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='the folder of the sweep')
    parser.add_argument('--sweep', default=str(pathlib.Path(__file__).with_name('sweep.py')))
    return parser.parse_args()


if __name__ == '__main__':
    command_line.run(main, parse)
