"""Encodes a dataset once with a model's first stage and text encoders; run again, it goes on where it stopped.

    python tools/encode_dataset.py --model sd15.safetensors --config configs/NAME.py --out data/encoded \
        [--config.data.path=...] [--parts first_stage,text_encoder] [--batch_size 16] [--dtype float16]

Only `data` of the config is used. On several hosts, each runs the same command with its own --process_index and the
same --process_count (under SLURM: $SLURM_PROCID, $SLURM_NTASKS), and a folder that they share. The result is read by
    data=dict(name='latents', path='data/encoded')
"""

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
    import configs
    from ldm_jax.training import encode_data, overrides

    config = overrides.apply(configs.plain(configs.load(args.config)), args.overrides)
    if 'data' not in config:
        raise ValueError(f"{args.config} has no 'data'; it has {sorted(config)}.")
    line = encode_data.encode(
        config['data'],
        args.model,
        args.out,
        parts=args.parts.split(',') if args.parts else None,
        dtypes=encode_data.Dtypes(args.dtype, args.compute_dtype),
        batch_size=args.batch_size,
        shard_size=args.shard_size,
        views=args.views,
        seed=args.seed,
        process_index=args.process_index,
        process_count=args.process_count,
        max_corrupt=args.max_corrupt,
    )
    print(line)


if __name__ == '__main__':
    command_line.run(main, parse, 'a smaller --batch_size, or smaller images (--config.data.image_size)')
