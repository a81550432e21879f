"""Makes images: from prompts, from other images, and from whatever else a model is conditioned on.

    python tools/sample.py --prompt "a red apple, noto style" [--num_images 4 --seed 1 --guidance_scale 3]
    python tools/sample.py --model MODEL --prompt "..." --init_image photo.png [--mask hole.png] [--strength 0.7]

Writes one PNG for each image, with its seed and settings as text in the form of A1111's web UI, and for several a
sheet with a row for each prompt. --from_png takes settings from such a file, the web UI's or ours.
"""

from ldm_jax import command_line
from ldm_jax.requests import flags
from ldm_jax.requests.options import ModelOptions, Output
from ldm_jax.requests.request import Request

MEMORY = 'a smaller --batch_size, --tile or --window (256, for example), a smaller size, or --dtype bfloat16'


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    for kind in (Request, ModelOptions, Output):
        flags.add(parser, kind)
    parser.add_argument('--prompts_file', help='a text with a prompt on each line')
    parser.add_argument('--from_png', help='take settings from an image; flags that are given count more')
    parser.add_argument('--list_samplers', action='store_true', help='print the names of samplers and grids')
    return parser.parse_args()


def main(args):
    from ldm_jax.requests import command

    if args.list_samplers:
        print(command.listing())
        return
    command.sample(args, flags.made(args, Output))


if __name__ == '__main__':
    command_line.run(main, parse, MEMORY)
