"""Shares of a sweep on engines that exist: SLURM by submitit, Ray by ray.

Each job is the command of one share, and all share a folder; what a job leaves undone the next start finds missing.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def run(
    name: str, command: Sequence[str], jobs: int, options: Mapping[str, Any], folder: pathlib.Path
) -> None:
    """Runs `command --shard i/jobs` for every i, and waits for all; a job that fails is named on standard error.

    Args:
        name: 'slurm' or 'ray'.
        options: of submitit.AutoExecutor.update_parameters, where cluster='local' starts processes of this machine,
            or of a Ray task.
        folder: of the sweep, for the logs of the jobs.

    Raises ModuleNotFoundError with the way out where the engine is not installed.
    """
    shares = [[*command, '--shard', f'{i}/{jobs}'] for i in range(jobs)]
    codes = {'slurm': _submitit, 'ray': _ray}[name](shares, dict(options), folder)
    for i, error in enumerate(codes):
        if error:
            print(f'share {i}/{jobs} failed: {error}', file=sys.stderr, flush=True)


def _submitit(shares: Sequence[Sequence[str]], options: dict[str, Any], folder: pathlib.Path) -> list[str]:
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "SLURM is reached by submitit: pip install 'ldm_jax[slurm]'.", name='submitit'
        ) from error
    executor = submitit.AutoExecutor(folder / 'jobs', cluster=options.pop('cluster', None))
    executor.update_parameters(**options)
    with executor.batch():
        started = [executor.submit(_share, share) for share in shares]
    return [job.result() for job in started]


def _ray(shares: Sequence[Sequence[str]], options: dict[str, Any], folder: pathlib.Path) -> list[str]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Ray is the package ray: pip install 'ldm_jax[ray]'.", name='ray'
        ) from error
    began = not ray.is_initialized()
    if began:  # a cluster that RAY_ADDRESS names, or one on this machine
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(_share)
        task = task.options(**options) if options else task
        return ray.get([task.remote(share) for share in shares])
    finally:
        if began:
            ray.shutdown()


def _share(command: Sequence[str], cwd: str | None = None) -> str:
    """Runs the command of a share: '' or what went wrong."""
    found = subprocess.run(list(command), stderr=subprocess.PIPE, text=True, cwd=cwd, env=dict(os.environ))
    return '' if not found.returncode else f'exit code {found.returncode}: {found.stderr.strip()[-300:]}'
