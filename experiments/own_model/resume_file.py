"""Packs a training run into one file of at most 40 MB, and unpacks it where the run goes on.

    python experiments/own_model/resume_file.py pack --workdir runs/emoji64_vae --file emoji64_vae.tar
    python experiments/own_model/resume_file.py unpack --workdir runs/emoji64_vae --file emoji64_vae.tar

The file holds the run's config, metrics and newest checkpoint as they are: a run that goes on from it gives what it
would have given. Nothing of a run that is further is replaced.
"""

import pathlib
import tarfile

from ldm_jax import command_line
from ldm_jax.atomic import atomic_write

LIMIT = 40_000_000  # bytes
KEPT = ('config.json', 'metrics.jsonl')


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('action', choices=('pack', 'unpack'))
    parser.add_argument('--workdir', required=True, type=pathlib.Path, help='the workdir of the run')
    parser.add_argument('--file', required=True, type=pathlib.Path, help='the file')
    return parser.parse_args()


def main(args):
    step = pack(args.workdir, args.file) if args.action == 'pack' else unpack(args.file, args.workdir)
    print(f'{args.file}: step {step}, {args.file.stat().st_size / 1e6:.1f} MB')


def pack(workdir, file):
    """Writes the file of a workdir; gives its step. Raises ValueError for one without checkpoints or too large."""
    steps = _steps(workdir)
    if not steps:
        raise ValueError(f'{workdir} has no checkpoint yet.')
    parts = [workdir / name for name in KEPT] + [workdir / 'checkpoints' / str(steps[-1])]
    with atomic_write(file) as partial:
        with tarfile.open(partial, 'w') as archive:
            for part in parts:
                if part.exists():
                    archive.add(part, part.relative_to(workdir))
        if partial.stat().st_size > LIMIT:
            raise ValueError(
                f'{workdir} takes {partial.stat().st_size / 1e6:.0f} MB, and the file may take 40.'
            )
    return steps[-1]


def unpack(file, workdir):
    """Fills a workdir from a file; gives the step. Raises ValueError when its run is as far, or further."""
    with tarfile.open(file) as archive:
        names = [pathlib.PurePosixPath(name).parts for name in archive.getnames()]
        step = next(int(parts[1]) for parts in names if len(parts) > 1 and parts[0] == 'checkpoints')
        have = _steps(workdir)
        if have and have[-1] >= step:
            raise ValueError(
                f'{workdir} is at step {have[-1]}, and {file} at {step}: take another --workdir.'
            )
        workdir.mkdir(parents=True, exist_ok=True)
        # Python before 3.11.4 has no filter, and warns of none.
        archive.extractall(workdir, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    return step


def _steps(workdir):
    """The steps of its checkpoints, in order."""
    return sorted(int(path.name) for path in (workdir / 'checkpoints').glob('*') if path.name.isdecimal())


if __name__ == '__main__':
    command_line.run(main, parse)
