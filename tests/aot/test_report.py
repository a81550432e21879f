"""Times, utilisation and tables by hand."""

import json

import pytest

from ldm_jax.aot import report, topology
from ldm_jax.aot.collectives import ACTIVATIONS, Collective

SLICE = topology.named('v5e-4')
GATHER = Collective('all-gather', 400_000_000, 1, ('fsdp',), 4, ACTIVATIONS, 'x')
SUM = Collective('all-reduce', 100_000_000, 2, ('data',), 2, '', '')


def made(**changed):
    fields = dict(
        what='train',
        topology=SLICE,
        mesh={'data': 1, 'fsdp': 4},
        batch_size=32,
        flops=4 * 98.5e12,
        memory={'arguments': 2**30, 'peak': 63 * 2**28},
        work=report.Work(197e12, 819e9 / 2, (GATHER, SUM)),
    )
    return report.Report(**fields | changed)


def test_times_are_work_over_peaks():
    found = made()
    assert found.work.sent == 300e6 + 2 * 2 * 50e6
    assert found.times == pytest.approx({'compute': 1.0, 'memory': 0.5, 'links': 0.5e9 / 100e9})
    assert found.seconds == pytest.approx({'overlapped': 1.0, 'serial': 1.505})
    # Half of what was computed is the model's own.
    assert found.utilisation == pytest.approx({'overlapped': 0.5, 'serial': 0.5 / 1.505})
    assert found.gathered == [GATHER]


def test_the_table_says_it_and_the_data_are_json():
    text = report.table(made())
    assert '| peak | 15.75 | 100% |' in text
    assert '| all-gather | fsdp | activations or gradients | 1 | 1 | 0.400 | 400.00 | 0.300 |' in text
    assert 'All-gathers of activations: 1.' in text
    assert '| if all overlap | 1000.0 | 50% | 32 |' in text
    plain = json.loads(json.dumps(report.data(made())))
    assert plain['images_per_second']['overlapped'] == 32
    assert plain['gathered_activations'][0]['nbytes'] == 400_000_000
    seen = made(work=report.Work(1e12, 1.0, (), kernels=('tpu_custom_call',)))  # most of it is in a kernel
    assert seen.times['compute'] == pytest.approx(0.5)
    assert seen.utilisation['overlapped'] == pytest.approx(1.0)
    alone = made(work=report.Work(197e12, 1.0, (), unknown_loops=2, kernels=('tpu_custom_call',)))
    assert 'No collectives' in report.table(alone)
    assert '2 loops' in report.table(alone)
