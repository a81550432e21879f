"""LoRAs and their kin: listed, converted, extracted from a model, resized, merged into one or into a model.

    python tools/adapters.py list loras
    python tools/adapters.py convert style.safetensors out --model MODEL --to diffusers
    python tools/adapters.py extract tuned.safetensors style.safetensors --model BASE --rank 32
    python tools/adapters.py resize style.safetensors small.safetensors --model MODEL --rank 8
    python tools/adapters.py merge style.safetensors:0.5 light.safetensors:0.8 both.safetensors --model MODEL
    python tools/adapters.py bake style.safetensors:0.8 models/styled --model MODEL

Sources come first, the destination last. MODEL is what the adapter is for, as sample.py takes it. `bake` writes a
model directory, which convert.py brings into other forms.
"""

import json

from ldm_jax import command_line

COMMANDS = ('list', 'convert', 'extract', 'resize', 'merge', 'bake')


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('command', choices=COMMANDS)
    parser.add_argument('paths', metavar='PATH', nargs='+')
    parser.add_argument('--model', help='that the adapter is for')
    parser.add_argument('--to', default='kohya', choices=['kohya', 'diffusers'], help='form of the file')
    parser.add_argument('--rank', type=command_line.at_least(1), help='of the result, at most')
    parser.add_argument(
        '--conv_rank', type=command_line.at_least(1), help='extract: of convolutions; none by default'
    )
    parser.add_argument('--clamp', type=float, help='extract: quantile to cut entries at; 0.99 in kohya')
    parser.add_argument(
        '--energy', type=float, help='resize: the least rank that keeps this share, 0.95 for example'
    )
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], help='as it is by default')
    args = parser.parse_args()
    if args.command != 'list' and (args.model is None or len(args.paths) < 2):
        parser.error(f'{args.command} needs SOURCE, DESTINATION and --model')
    return args


def main(args):
    from ldm_jax.adapters import commands

    for line in commands.run(args.command, args.paths, vars(args)):
        print(line if isinstance(line, str) else json.dumps(line))


if __name__ == '__main__':
    command_line.run(main, parse)
