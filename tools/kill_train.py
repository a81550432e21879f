"""Kills a training again and again (SIGKILL) and looks whether anything was lost.

    python tools/kill_train.py --kills 200 [--config configs/tiny.py:first_stage] [-- --config.run.batch_size=4]

Trains with a checkpoint every step until the run has ended, then starts another, until there were so many kills.
After each kill every listed checkpoint must be undamaged and no checkpoint that was announced may be gone;
after each start nothing that an earlier kill left unfinished may be there; each run must end in the state and with
the metrics of one that was not killed, to the bit. Prints a line for each kill and the sums as JSON; exit code 1 if
anything failed.
"""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from ldm_jax import command_line

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLOCKED = (
    'images_per_second',
    'steps_per_second',
    'data_wait',
    'flop_utilisation',
    'memory_gib',
    'memory_peak_gib',
)


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--config', default=f'{ROOT}/configs/tiny.py:first_stage')
    parser.add_argument('--num_steps', type=int, default=120, help='of each run')
    parser.add_argument('--save_every', type=int, default=1)
    parser.add_argument('--seed', type=int, default=0, help='of the times of the kills')
    parser.add_argument('--devices', type=int, default=1, help='simulated CPU devices')
    parser.add_argument('--workdir', help='a new folder; a temporary one by default')
    parser.add_argument('flags', nargs='*', help='after --, flags for tools/train.py')
    return parser.parse_args()


def main(args):
    root = pathlib.Path(args.workdir or tempfile.mkdtemp(prefix='kill_train_'))
    root.mkdir(parents=True, exist_ok=True)
    clock = random.Random(args.seed)
    whole = root / 'whole'
    Training(args, whole, root).wait()
    found = dict(
        kills=0, runs=0, unreadable=0, lost=0, stale=0, different=0, while_saving=0, while_deleting=0
    )
    while found['kills'] < args.kills:
        workdir = root / f'run_{found["runs"]}'
        if not attempt(args, workdir, root, clock, found):  # it ended before it was killed
            found['runs'] += 1
            found['different'] += compare(whole, workdir)
    Training(args, workdir, root).wait()
    found['different'] += compare(whole, workdir)
    print(json.dumps(found))
    return any(found[name] for name in ('unreadable', 'lost', 'stale', 'different'))


def attempt(args, workdir, root, clock, found):
    """One start of a training and, unless it ends first, its kill; adds to the findings. Whether it was killed."""
    announced = acknowledged(workdir)
    began = time.time()
    training = Training(args, workdir, root)
    if clock.random() < 0.25:  # anywhere, compilation and restoring included
        time.sleep(clock.uniform(0, 6))
    else:
        training.training.wait()
        found['stale'] += any(path.stat().st_ctime < began for path in existing(leftovers(workdir)))
        time.sleep(clock.uniform(0, 1.5))
    if not training.kill():
        return False
    found['kills'] += 1
    left = [str(path.relative_to(workdir / 'checkpoints')) for path in leftovers(workdir)]
    found['while_saving'] += any('tmp' in name for name in left)
    found['while_deleting'] += any(name.startswith('deleted/') for name in left)
    announced |= acknowledged(workdir)
    steps = inspect(workdir)
    bad = {step: error for step, error in steps.items() if error}
    newest = max(steps, default=0)
    lost = [step for step in announced if step > newest]
    found['unreadable'] += len(bad)
    found['lost'] += bool(lost)
    print(
        f'kill {found["kills"]}: steps {list(steps)}, left {left}, unreadable {bad}, lost {lost}', flush=True
    )
    return True


class Training:
    """tools/train.py in a process of its own; its output is kept in workdir.log."""

    def __init__(self, args, workdir, root):
        command = [sys.executable, str(ROOT / 'tools' / 'train.py'), '--config', args.config]
        command += ['--workdir', str(workdir), f'--config.run.num_steps={args.num_steps}']
        command += [f'--config.run.save_every={args.save_every}', '--config.run.log_every=7']
        command += ['--config.run.image_every=1000', '--config.run.keep_every=25', *args.flags]
        environment = os.environ | {
            'JAX_COMPILATION_CACHE_DIR': str(root / 'cache'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'XLA_FLAGS': f'--xla_force_host_platform_device_count={args.devices}',
        }
        self.training = threading.Event()  # its first step has been compiled, or it has ended
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self._log = open(log_of(workdir), 'a')  # noqa: SIM115 (closed by the reader)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self._log:
            for line in self._process.stdout:
                self._log.write(line)
                self._log.flush()
                if line.startswith('compiled'):
                    self.training.set()
        self.training.set()

    def kill(self):
        """Whether it was running; raises RuntimeError if it had failed by itself."""
        self._process.send_signal(signal.SIGKILL)
        return self._end() == -signal.SIGKILL

    def wait(self):
        self._end()

    def _end(self):
        code = self._process.wait()
        self._reader.join()
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f'training failed with exit code {code}; see {self._log.name}')
        return code


def log_of(workdir):
    return workdir.with_suffix('.log')


def acknowledged(workdir):
    """The checkpoints that the training said it had written."""
    path = log_of(workdir)
    return (
        set(map(int, re.findall(r'checkpoint (\d+) written', path.read_text()))) if path.exists() else set()
    )


def leftovers(workdir):
    """What a kill left half written or half removed."""
    from ldm_jax.training.saving import stored_steps

    folder = workdir / 'checkpoints'
    if not folder.is_dir():
        return []
    inside = [path for path in stored_steps.unfinished(folder) if path.name != stored_steps.DELETED]
    deleted = folder / stored_steps.DELETED
    inside += list(deleted.iterdir()) if deleted.is_dir() else []
    return inside


def existing(paths):
    """A training that goes on meanwhile removes some."""
    return [path for path in paths if path.exists()]


def inspect(workdir):
    """Every listed step with its fault, if it has one."""
    from ldm_jax.training.saving import stored_steps

    folder = workdir / 'checkpoints'
    return stored_steps.inspect(folder) if folder.is_dir() else {}


def compare(whole, workdir):
    """How many of the last state's checksums and of the lines of metrics.jsonl differ."""
    from ldm_jax.training.monitoring import writers
    from ldm_jax.training.saving import stored_steps

    records = [stored_steps.read_record(newest(path / 'checkpoints')) for path in (whole, workdir)]
    arrays = [record['arrays'] for record in records]
    wrong = sum(arrays[0].get(name) != arrays[1].get(name) for name in arrays[0].keys() | arrays[1].keys())
    lines = [
        [{k: v for k, v in line.items() if k not in CLOCKED} for line in writers.read_metrics(path)]
        for path in (whole, workdir)
    ]
    wrong += sum(a != b for a, b in zip(*lines, strict=False)) + abs(len(lines[0]) - len(lines[1]))
    print(
        f'{workdir}: {len(arrays[0])} arrays and {len(lines[0])} lines of metrics, {wrong} differ', flush=True
    )
    return wrong


def newest(folder):
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    command_line.run(main, parse)
