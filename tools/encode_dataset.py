"""Encodes a dataset once with a model's first stage and text encoders; run again, it goes on where it stopped.

    python tools/encode_dataset.py --model sd15.safetensors --config configs/NAME.py --out data/encoded \
        [--config.data.path=...] [--parts first_stage,text_encoder] [--batch_size 16] [--dtype float16]

Of the config only `data` is used. On several hosts, each runs the same command with its own --process_index and the
same --process_count (under SLURM: $SLURM_PROCID, $SLURM_NTASKS), and a folder that they share. The result is read by
    data=dict(name='latents', path='data/encoded')
"""

import hashlib
import json
import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, "What to encode: the 'data' of a file of configs/.")
MODEL = flags.DEFINE_string('model', None, "A model's name, directory, checkpoint file or repository id.")
OUT = flags.DEFINE_string('out', None, 'The folder to write to.')
PARTS = flags.DEFINE_list(
    'parts', None, 'Of the model: first_stage, text_encoder, text_encoder_2; all it has.'
)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 16, 'Examples that are encoded at once.', lower_bound=1)
SHARD_SIZE = flags.DEFINE_integer('shard_size', 4096, 'Examples in a file.', lower_bound=1)
VIEWS = flags.DEFINE_integer('views', 1, 'Random crops and mirrorings of each example.', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'Of those.')
DTYPE = flags.DEFINE_enum('dtype', 'float16', ['float16', 'bfloat16', 'float32'], 'Of what is written.')
COMPUTE = flags.DEFINE_enum(
    'compute_dtype', 'float32', ['float16', 'bfloat16', 'float32'], 'Of the networks.'
)
MAX_CORRUPT = flags.DEFINE_float('max_corrupt', 0.1, 'Share of the examples that may be unreadable.')
INDEX = flags.DEFINE_integer('process_index', 0, 'Which process this is.', lower_bound=0)
COUNT = flags.DEFINE_integer('process_count', 1, 'How many processes there are.', lower_bound=1)
flags.mark_flags_as_required(['config', 'model', 'out'])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'No positional arguments are taken; got {argv[1:]}.')
    import jax
    import numpy as np

    from ldm_jax.build import build
    from ldm_jax.checkpoints import loading, store
    from ldm_jax.conditioning import encoder
    from ldm_jax.data import encoding
    from ldm_jax.images import to_float

    logging.set_verbosity(logging.WARNING)
    if 'data' not in CONFIG.value:
        raise app.UsageError(f"The config has no 'data'; it has {sorted(CONFIG.value)}.")
    source = build('data', CONFIG.value.data)
    job = encoding.Job(source, BATCH_SIZE.value, SHARD_SIZE.value, VIEWS.value, SEED.value)
    path = loading.resolve(MODEL.value)
    stored = store.open_model(path)
    have = [part for part in stored.parts if part == 'first_stage' or part.startswith('text_encoder')]
    model = encoder.from_settings(stored.settings, PARTS.value or have, COMPUTE.value)
    params = loading.load(path, model.parts).params
    # Each device of this process takes a part of the batch.
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ('data',))
    shared, split = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ('data',)))
    if BATCH_SIZE.value % mesh.size:
        raise app.UsageError(
            f'--batch_size must be a multiple of the {mesh.size} devices; got {BATCH_SIZE.value}.'
        )
    run = jax.jit(model, in_shardings=(shared, split, split))
    params = jax.device_put(params, shared)

    def encode(batch):
        image = to_float(batch['image']) if 'first_stage' in model.modules else None
        found = run(params, image, model.tokens(batch['text']) if model.tokenizers else {})
        return {name: np.asarray(array.astype(DTYPE.value)) for name, array in found.items()}

    def null():
        found = run(params, None, model.tokens([''] * BATCH_SIZE.value))
        return {name: np.asarray(array[0].astype(DTYPE.value)) for name, array in found.items()}

    settings = {
        'model': MODEL.value,
        'parts': {part: checksum(path, part) for part in model.parts},
        'settings': stored.settings,
        'data': json.loads(CONFIG.value.data.to_json()),
        'dtype': DTYPE.value,
        'compute_dtype': COMPUTE.value,
    }
    report = encoding.encode(
        job,
        encode,
        OUT.value,
        settings,
        null=null if model.tokenizers else None,
        process_index=INDEX.value,
        process_count=COUNT.value,
        max_corrupt=MAX_CORRUPT.value,
    )
    print(f'{report}; encoded data in {OUT.value}')


def checksum(path, part):
    """Of the parameters of a part of a model: of their checksums."""
    table = json.loads((pathlib.Path(path) / 'checksums.json').read_text())
    entries = sorted((name, entry['crc32']) for name, entry in table.items() if name.startswith(f'{part}/'))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


if __name__ == '__main__':
    app.run(main)
