"""Several processes, one a host or one a device, as parts of one run.

They find each other by the environment variables JAX_COORDINATOR_ADDRESS (host:port of process 0), NUM_PROCESSES and
PROCESS_ID, or, without these, by the environment of SLURM, Open MPI, Kubernetes or a TPU pod.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ldm_jax.types import PyTree

PATIENCE = 24 * 3600  # seconds that processes which are done wait for the first, which measures the model
T = TypeVar('T')

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'NUM_PROCESSES', 'PROCESS_ID')


def start() -> None:
    """Joins the other processes. To be called before anything else uses a device.

    Raises ValueError when only some of VARIABLES are set or they make no sense; RuntimeError when the others are not
    found in five minutes.
    """
    found = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not found:
        jax.distributed.initialize(shutdown_timeout_seconds=PATIENCE)
        return
    address = found.get(VARIABLES[0], '')
    numbers = [found.get(name, '') for name in VARIABLES[1:]]
    whole = all(number.isdecimal() for number in numbers) and int(numbers[1]) < int(numbers[0])
    if ':' not in address or not whole:
        raise ValueError(
            f'Processes find each other by {list(VARIABLES)}: host:port of process 0, how many there are, and which '
            f'this is, from 0; got {found}. Set all three, or none under SLURM, Open MPI, Kubernetes and on TPU pods.'
        )
    jax.distributed.initialize(address, int(numbers[0]), int(numbers[1]), shutdown_timeout_seconds=PATIENCE)


def first() -> bool:
    """Whether this process writes what one alone should."""
    return jax.process_index() == 0


def leave(code: int) -> None:
    """Ends the process with an exit code, after all processes have come here.

    A compilation or a read may be under way in a thread, on which the interpreter's own end could crash. The one that
    coordinates must be the last to go: the others would take its end for a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
    os._exit(code)


def apart(function: Callable[..., T], *args: Any) -> T:
    """function(*args), in a process of its own on this host's CPUs where this one is one of several.

    Orbax has all processes of a run write together whatever one writes. What is passed must survive pickling.
    """
    if not jax.distributed.is_initialized():
        return function(*args)
    pool = concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context('spawn'), initializer=_on_cpu
    )
    with pool:
        return pool.submit(function, *args).result()


def _on_cpu() -> None:
    jax.config.update('jax_platforms', 'cpu')


def gathered(tree: PyTree) -> PyTree:
    """The arrays of a tree as numpy's, whole, on every process. All processes must call it."""
    return jax.tree.map(_gathered, tree)


def together(values: np.ndarray) -> np.ndarray:
    """Sums over all processes of an array that each has, on each. All processes must call it."""
    if jax.process_count() == 1:
        return np.asarray(values)
    return np.asarray(multihost_utils.process_allgather(np.asarray(values))).sum(axis=0)


def _gathered(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0) if leaf.is_fully_replicated else leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
