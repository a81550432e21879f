"""Compiles a config's training step, or its sampler, for a TPU slice that need not be there, and says what it needs.

    python tools/aot.py --config configs/train_sd15.py --topology v5e-256 [--batch 8] [--what sample] [--json]

It needs libtpu (pip install 'ldm_jax[tpu]'), no TPU and no weights: everything is made from shapes. Topologies are
named as in the cloud (v5e-16, v5p-128, v6e-256, v4-32) or by their sides (v5p:4x4x12). The step of a model of a billion
parameters compiles in minutes, in 6 to 16 GB of memory.

Exit codes: 0 it fits, 1 it does not, or an error; 2 a wrong flag.
"""

import json
import os
import sys

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'What is trained: a file of configs/.')
TOPOLOGY = flags.DEFINE_string('topology', None, 'The slice: v5e-16, v5p-128, v6e-256, v5p:4x4x12, ...')
WHAT = flags.DEFINE_enum('what', 'train', ['train', 'sample'], 'The training step, or the sampler.')
BATCH = flags.DEFINE_integer(
    'batch', None, 'Images that a chip holds at once; run.batch_size over all by default.', lower_bound=1
)
SAMPLER = flags.DEFINE_string('sampler', 'dpmpp_2m', 'Of --what sample.')
NUM_STEPS = flags.DEFINE_integer('num_steps', 25, 'Of --what sample.', lower_bound=1)
EFFORT = flags.DEFINE_enum(
    'effort', 'O1', ['O1', 'O2', 'O3'], "The compiler's: O1 takes less than half the time of its default, O2."
)
HLO = flags.DEFINE_string('hlo', None, 'A file to write the compiled program to, as text.')
JSON = flags.DEFINE_bool('json', False, 'Plain data instead of tables.')
flags.mark_flags_as_required(['config', 'topology'])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    # The host's own devices are not asked for: libtpu would look for TPUs.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    from ldm_jax.aot import topology

    try:
        slice_ = topology.named(TOPOLOGY.value)
        topology.check_compiler()
    except (ValueError, topology.NoCompiler) as error:
        sys.exit(str(error))
    import jax

    from ldm_jax.aot import programs, report

    jax.config.update('jax_optimization_level', EFFORT.value)
    # Such programs can be written to it and not read.
    jax.config.update('jax_enable_compilation_cache', False)
    config = json.loads(CONFIG.value.to_json())
    print(f'tracing for {slice_.chips} chips', file=sys.stderr, flush=True)
    if WHAT.value == 'train':
        program = programs.train(config, slice_.devices(), BATCH.value)
    else:
        program = programs.sample(
            config, slice_.devices(), BATCH.value or 1, sampler=SAMPLER.value, num_steps=NUM_STEPS.value
        )
    print('compiling', file=sys.stderr, flush=True)
    try:
        compiled = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        sys.exit(
            f'It does not fit on {slice_.name}: {str(error).splitlines()[0]}\nTake a smaller --batch, more of '
            'run.parallel.fsdp, models.unet.remat, or a larger slice.'
        )
    if HLO.value:
        with open(HLO.value, 'w') as file:
            file.write(compiled.as_text())
    found = report.of(program, compiled, slice_)
    print(json.dumps(report.data(found), indent=2) if JSON.value else report.table(found))


if __name__ == '__main__':
    app.run(main)
