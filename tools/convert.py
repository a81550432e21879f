"""Converts a checkpoint: a public file, folder or repository into a model directory, and back.

    python tools/convert.py v1-5-pruned-emaonly.safetensors models/sd15
    python tools/convert.py stabilityai/stable-diffusion-2-1 models/sd21 --variant fp16
    python tools/convert.py models/sd15 sd15.safetensors --to compvis
    python tools/convert.py unet.safetensors models/mine --text_encoder models/sd15 --vae models/sd15

SOURCE is a .ckpt or .safetensors file, a diffusers folder, a model directory, or the id of a repository on the
Hugging Face hub (owner/name, owner/name/file.safetensors). Nothing in a .ckpt is executed. A report of what became
of every key is written beside the result. An earlier conversion at the destination is replaced once the new one is
whole; anything else there is left alone.
"""

import json
import os
import sys

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('source', metavar='SOURCE')
    parser.add_argument(
        'destination', metavar='DESTINATION', help='a directory, or the .safetensors to write'
    )
    parser.add_argument('--to', default='orbax', choices=['orbax', 'compvis', 'diffusers'])
    parser.add_argument(
        '--model', help='a config (tools/inspect_model.py --list) instead of the recognized one'
    )
    parser.add_argument(
        '--prediction', choices=['eps', 'v'], help='where keys do not show it: Stable Diffusion 2'
    )
    parser.add_argument(
        '--weights',
        default='main',
        choices=['main', 'ema'],
        help='ema: the averages of a training checkpoint',
    )
    parser.add_argument(
        '--dtype', choices=['float32', 'bfloat16', 'float16'], help='as in the source by default'
    )
    parser.add_argument('--parts', help='such as unet,vae,text_encoder; all by default')
    parser.add_argument('--text_encoder', metavar='MODEL', help='another model whose text encoder is taken')
    parser.add_argument('--vae', metavar='MODEL', help='another model whose first stage is taken')
    parser.add_argument(
        '--ignore', metavar='PATTERN', action='append', default=[], help="keys to leave out, such as 'ema.*'"
    )
    parser.add_argument('--variant', help="of a diffusers folder's files, such as fp16")
    parser.add_argument('--revision', help='branch, tag or commit of a repository on the hub')
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    return parser.parse_args()


def main(args):
    from ldm_jax.checkpoints import hub, store
    from ldm_jax.checkpoints.choice import Choice
    from ldm_jax.checkpoints.convert import convert, lines

    model = None
    if args.model:
        import configs

        config = json.loads(configs.load(args.model).to_json())
        config.pop('loss', None)  # of its training, not of the model
        model = config
    choice = Choice(
        prediction=args.prediction,
        weights=args.weights,
        variant=args.variant,
        parts=None if args.parts is None else tuple(args.parts.split(',')),
        model=model,
        ignore=tuple(args.ignore),
    )
    source, origin = hub.locate(store.find(args.source), args.revision, args.variant)
    given = {'text_encoder': args.text_encoder, 'first_stage': args.vae}
    take = {part: hub.locate(store.find(path))[0] for part, path in given.items() if path is not None}
    replaced = os.path.exists(args.destination)
    report = convert(
        source, args.destination, to=args.to, dtype=args.dtype, choice=choice, origin=origin, take=take
    )
    if replaced:
        print(f'{args.destination}: replaced the conversion that was there', file=sys.stderr)
    print(json.dumps(report, indent=2) if args.json else '\n'.join(lines(report)))


if __name__ == '__main__':
    command_line.run(main, parse)
