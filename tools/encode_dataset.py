"""Encodes a dataset once with a model's first stage and text encoders; run again, it goes on where it stopped.

    python tools/encode_dataset.py --model sd15.safetensors --config configs/NAME.py --out data/encoded \
        [--config.data.path=...] [--parts first_stage,text_encoder] [--batch_size 16] [--dtype float16]

Only `data` of the config is used. On several hosts, each runs the same command with its own --process_index and the
same --process_count (under SLURM: $SLURM_PROCID, $SLURM_NTASKS), and a folder that they share. The result is read by
    data=dict(name='latents', path='data/encoded')
"""

import hashlib
import json
import pathlib

from ldm_jax import command_line

DTYPES = ['float16', 'bfloat16', 'float32']


def parse():
    parser = command_line.Parser(__doc__, overrides=True, compiles=True)
    add, count = parser.add_argument, command_line.at_least(1)
    add('--config', required=True, help="whose 'data' to encode: a file of configs/, or the name of one")
    add('--model', required=True, help="a model's name, directory, checkpoint file or repository id")
    add('--out', required=True, help='the folder to write to')
    add('--parts', help='of the model: first_stage,text_encoder,text_encoder_2; all it has')
    add('--batch_size', type=count, default=16, help='examples that are encoded at once')
    add('--shard_size', type=count, default=4096, help='examples in a file')
    add('--views', type=count, default=1, help='random crops and mirrorings of each example')
    add('--seed', type=int, default=0, help='of those')
    add('--dtype', default='float16', choices=DTYPES, help='of the encoded arrays')
    add('--compute_dtype', default='float32', choices=DTYPES, help='of the networks')
    add('--max_corrupt', type=float, default=0.1, help='share of the examples that may be unreadable')
    add('--process_index', type=command_line.at_least(0), default=0, help='which process this is')
    add('--process_count', type=count, default=1, help='how many processes there are')
    return parser.parse_args()


def main(args):
    import jax
    import numpy as np

    import configs
    from ldm_jax.build import build
    from ldm_jax.checkpoints import loading, store
    from ldm_jax.conditioning import encoder
    from ldm_jax.data import encoding
    from ldm_jax.images import to_float
    from ldm_jax.training import overrides

    config = overrides.apply(configs.plain(configs.load(args.config)), args.overrides)
    if 'data' not in config:
        raise ValueError(f"{args.config} has no 'data'; it has {sorted(config)}.")
    source = build('data', config['data'])
    job = encoding.Encoding(source, args.batch_size, args.shard_size, args.views, args.seed)
    path = loading.resolve(args.model)
    stored = store.open_model(path)
    have = [part for part in stored.parts if part == 'first_stage' or part.startswith('text_encoder')]
    parts = args.parts.split(',') if args.parts else have
    model = encoder.from_settings(stored.settings, parts, args.compute_dtype)
    params = loading.load(path, model.parts).params
    # Each device of this process takes a part of the batch.
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ('data',))
    shared, split = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ('data',)))
    if args.batch_size % mesh.size:
        raise ValueError(
            f'--batch_size must be a multiple of the {mesh.size} devices; got {args.batch_size}.'
        )
    run = jax.jit(model, in_shardings=(shared, split, split))
    params = jax.device_put(params, shared)

    def encode(batch):
        image = to_float(batch['image']) if 'first_stage' in model.modules else None
        found = run(params, image, model.tokens(batch['text']) if model.tokenizers else {})
        return {name: np.asarray(array.astype(args.dtype)) for name, array in found.items()}

    def null():
        found = run(params, None, model.tokens([''] * args.batch_size))
        return {name: np.asarray(array[0].astype(args.dtype)) for name, array in found.items()}

    settings = {
        'model': args.model,
        'parts': {part: checksum(path, part) for part in model.parts},
        'settings': stored.settings,
        'data': config['data'],
        'dtype': args.dtype,
        'compute_dtype': args.compute_dtype,
    }
    report = encoding.encode(
        job,
        encode,
        args.out,
        settings,
        null=null if model.tokenizers else None,
        process_index=args.process_index,
        process_count=args.process_count,
        max_corrupt=args.max_corrupt,
    )
    print(f'{report}; encoded data in {args.out}')


def checksum(path, part):
    """A digest of the checksums of a part's parameters."""
    table = json.loads((pathlib.Path(path) / 'checksums.json').read_text())
    entries = sorted((name, entry['crc32']) for name, entry in table.items() if name.startswith(f'{part}/'))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


if __name__ == '__main__':
    command_line.run(main, parse, 'a smaller --batch_size, or smaller images (--config.data.image_size)')
