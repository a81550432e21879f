"""Times the conversion of a float32 Stable Diffusion 1.5 file, beside copying it and reading it with diffusers.

    python tools/bench_convert.py [--folder DIR] [--runs 3]

Makes a file of random weights (4.3 GB) in the folder, and needs 14 GB there while it runs. Each figure is of a
process of its own, in turns; printed are medians, and the peak of resident memory above that of a process that
has only imported what it needs. Needs the test extra for the row of diffusers.
"""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from ldm_jax import command_line

CONVERT = 'from ldm_jax.checkpoints.convert import convert'
DIFFUSERS = 'import torch\nfrom diffusers import StableDiffusionPipeline'
JOBS = {
    # name: (what is imported first, what is timed)
    'convert': (CONVERT, "convert('{file}', '{out}')"),
    'diffusers from_single_file': (
        DIFFUSERS,
        "StableDiffusionPipeline.from_single_file('{file}', config='{config}', safety_checker=None)",
    ),
    'copy': ('import shutil', "shutil.copyfile('{file}', '{out}')"),
    'write Orbax, uncompressed': (
        'import numpy as np\nfrom ldm_jax.checkpoints import store\n'
        "arrays = store.open_model('{model}', verify=False)\narrays = arrays.read(list(arrays.specs))\n"
        'from orbax.checkpoint import v1 as ocp',
        'context = ocp.Context()\n    context.array.saving.use_compression = False\n'
        "    with context:\n        ocp.save('{out}', arrays)",
    ),
}
PROGRAM = """
import os, time
import jax; jax.devices()
{first}
def job():
    {timed}
    os.sync()
def peak():  # not getrusage, which remembers what the process was forked from
    lines = open('/proc/self/status').read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
before = peak()
start = time.perf_counter()
job()
print(time.perf_counter() - start, peak() - before)
"""


def main(args):
    folder = pathlib.Path(tempfile.mkdtemp(dir=args.folder))
    try:
        names = dict(file=folder / 'sd15.safetensors', model=folder / 'model', config=folder / 'diffusers')
        make(names)
        size = names['file'].stat().st_size
        print(f'{size / 1e9:.2f} GB', flush=True)
        found = {name: [] for name in JOBS}
        for _ in range(args.runs):
            for name, (first, timed) in JOBS.items():
                out = folder / 'out'
                code = PROGRAM.format(first=first, timed=timed).format(**names, out=out)
                run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
                if run.returncode:
                    sys.exit(f'{name} failed:\n{run.stderr[-2000:]}')
                found[name].append([float(word) for word in run.stdout.split()[-2:]])
                shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
        print('| job | seconds | memory above the imports |\n|---|---|---|')
        medians = {}
        for name, rows in found.items():
            medians[name], memory = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f'| {name} | {medians[name]:.1f} | {memory / 1e9:.2f} GB |')
        yardstick = medians['copy'] + medians['write Orbax, uncompressed']
        print(f'conversion over copy and write: {medians["convert"] / yardstick:.2f}')
        print(f'conversion over diffusers: {medians["convert"] / medians["diffusers from_single_file"]:.2f}')
    finally:
        shutil.rmtree(folder)


def make(names):
    """The file, its conversion, and what diffusers wants to know beside it, from random weights."""
    import json

    import numpy as np

    import configs
    from ldm_jax import build, trees
    from ldm_jax.checkpoints.apply_layout import export_specs
    from ldm_jax.checkpoints.convert import convert, single_file_metadata
    from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
    from ldm_jax.checkpoints.files import safetensors
    from ldm_jax.checkpoints.layouts import single_file
    from ldm_jax.checkpoints.lazy_arrays import Arrays

    settings = json.loads(configs.load('sd15').to_json())
    shapes = {part: trees.shapes(model) for part, model in build.parts(settings).items()}
    blanks = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in trees.named(shapes).items()}
    specs = export_specs(single_file.layout(settings), Arrays(blanks))
    rng = np.random.default_rng(0)
    weights = ((key, rng.standard_normal(spec.shape, np.float32) / 50) for key, spec in specs.items())
    safetensors.write(names['file'], specs, weights, single_file_metadata(settings))
    convert(names['file'], names['model'])
    names['config'].mkdir()
    diffusers_settings.write_settings(settings, names['config'])


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('--folder', help='a disk with 14 GB; the temporary one by default')
    parser.add_argument('--runs', type=int, default=3)
    return parser.parse_args()


if __name__ == '__main__':
    command_line.run(main, parse)
