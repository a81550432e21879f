"""How fast a run goes, and how much of the machine that is.

Utilisation is the FLOPs of the step's matrix products and convolutions, forward and backward, over what the devices
could do in the time (Chowdhery et al. 2022, arXiv:2204.02311, appendix B, but for products computed again under
rematerialisation, which are counted too).
"""

from __future__ import annotations

import re
import time

import jax
from jax.extend.core import ClosedJaxpr

from ldm_jax import costs

# Dense bfloat16 FLOP/s of one device by what JAX calls it, from the makers' data sheets.
PEAK_FLOPS = {
    'TPU v2': 22.5e12,
    'TPU v3': 61.5e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5e': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
    'TPU v6e': 918e12,
    'NVIDIA A100': 312e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H200': 989e12,
    'NVIDIA L4': 121e12,
    'NVIDIA L40S': 362e12,
    'Tesla V100': 125e12,
    'Tesla T4': 65e12,
}


def peak_flops(device_kind: str) -> float | None:
    """The peak of a device by its kind, such as 'NVIDIA H100 80GB HBM3'; None when it is not known, as for CPUs."""
    known = [kind for kind in PEAK_FLOPS if re.match(rf'{re.escape(kind)}\b', device_kind)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def step_flops(program: ClosedJaxpr) -> float | None:
    """FLOPs of one step from its traced program; None where they cannot be counted (see costs.py)."""
    try:
        return 2.0 * costs.program_macs(program)
    except ValueError:
        return None


def memory() -> dict[str, float]:
    """GiB in use on this host's fullest device, now and at most since the start; nothing where it is unknown."""
    stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    names = {'memory_gib': 'bytes_in_use', 'memory_peak_gib': 'peak_bytes_in_use'}
    return {
        name: max(s[key] for s in stats) / 2**30
        for name, key in names.items()
        if stats and all(key in s for s in stats)
    }


class Clock:
    """Time between two log lines, by what it was spent on."""

    def __init__(self, batch_size: int, devices: int):
        peak = peak_flops(jax.devices()[0].device_kind)
        self._batch_size, self._peak = batch_size, peak and peak * devices
        self._begin()

    def _begin(self) -> None:
        self._start, self._steps, self._waited, self._aside = time.monotonic(), 0, 0.0, 0.0
        self._flops: float | None = 0.0

    def step(self, waited: float, flops: float | None) -> None:
        """One step of so many FLOPs was run, before which the loop waited so many seconds for its batch."""
        self._steps += 1
        self._waited += waited
        self._flops = None if flops is None or self._flops is None else self._flops + flops

    def aside(self, seconds: float) -> None:
        """Time that went into images and the start of saves, which is not training."""
        self._aside += seconds

    def close(self) -> dict[str, float]:
        """Rates since the last line: what JSON lines and the writers show beside the metrics."""
        seconds = max(time.monotonic() - self._start - self._aside, 1e-9)
        steps = self._steps / seconds
        rates = {
            'images_per_second': self._batch_size * steps,
            'steps_per_second': steps,
            'data_wait': self._waited / seconds,  # share of the time
        }
        if self._flops and self._peak:
            rates['flop_utilisation'] = self._flops / seconds / self._peak
        self._begin()
        return rates | memory()
