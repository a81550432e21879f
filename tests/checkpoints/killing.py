"""Conversions that are killed when they are about to touch the disk.

A process of its own, which forks one for each conversion: `python -m tests.checkpoints.killing` reads lines of
JSON, [source, destination, to, renames, n], and answers each with what touched the disk, in order, or null once it was
killed: at the n-th touch after so many renames, where n = 0 is the last of those itself. How many touches there are
between two renames varies with the writer's threads, how many renames does not. renames null: not killed.
"""

import json
import os
import pathlib
import signal
import sys

from orbax.checkpoint import v1  # noqa: F401 (once, not in every fork)

from ldm_jax.checkpoints.convert import convert

TOUCHES = ('open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'shutil.rmtree')


def main():
    for line in sys.stdin:
        arguments = json.loads(line)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(into, json.dumps(_touches(*arguments)).encode())
            os._exit(0)
        os.close(into)
        _, status = os.waitpid(child, 0)
        text = os.read(out, 2**16)
        os.close(out)
        if not text and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f'The conversion ended by itself, with status {status}.')
        print(text.decode() or 'null', flush=True)


def _touches(source, destination, to, renames, n):
    seen, starts, folder = [], [0], str(pathlib.Path(destination).parent)

    def hook(event, arguments):  # which Python calls before it does what the event says
        if event in TOUCHES and str(arguments[0]).startswith(folder):
            seen.append(event)
            if event == 'os.rename':
                starts.append(len(seen))
            if renames is not None and len(starts) > renames and len(seen) - starts[renames] == n:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    convert(source, destination, to=to)
    return seen


if __name__ == '__main__':
    main()
