"""Makes pictures from prompts.

    python tools/sample.py --prompt "a red apple, noto style" [--num_images 4 --seed 1 --guidance_scale 3]

Writes one PNG for each image, with its prompt, seed and settings as text in the file, and for several
images a contact sheet with a row for each prompt.
"""

import argparse
import json
import pathlib
import sys
import time


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--prompt', nargs='+', help='what the picture should show; one or several')
    parser.add_argument('--negative_prompt', default='', help='what it should not show')
    parser.add_argument(
        '--model',
        default='emoji32',
        help='shipped (emoji32), a model directory, a public checkpoint, or a hub id',
    )
    parser.add_argument('--out', default='samples', help='folder for the PNG files')
    parser.add_argument('--num_images', type=int, default=4, help='for each prompt')
    parser.add_argument(
        '--seed', type=int, default=0, help='image i is made from (seed, i), whatever --num_images is'
    )
    parser.add_argument('--num_steps', type=int, default=30)
    parser.add_argument('--guidance_scale', type=float, default=2.0, help='1 is no guidance')
    parser.add_argument(
        '--sampler', default='ddim', help="ours, or a name of A1111, ComfyUI or diffusers: 'DPM++ 2M Karras'"
    )
    parser.add_argument('--eta', type=float, help='of samplers that have it: 0 is deterministic for most')
    parser.add_argument('--grid', help="the levels: 'trailing' by default, 'karras', ..., or such a name")
    parser.add_argument('--list_samplers', action='store_true', help='print the names of samplers and grids')
    parser.add_argument(
        '--dtype', default='float32', choices=['float32', 'bfloat16'], help='of the computation'
    )
    parser.add_argument(
        '--scale',
        type=int,
        help='each pixel becomes this many, each way, in the files; 8 by default up to 64 pixels wide, 1 beyond',
    )
    args = parser.parse_args()
    if not args.prompt and not args.list_samplers:
        parser.error('the following arguments are required: --prompt')
    for name in ('num_images', 'num_steps', 'scale'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1; got {getattr(args, name)}.')
    return args


def main(args):
    from ldm_jax import pictures
    from ldm_jax.build import names
    from ldm_jax.diffusion import aliases, grids
    from ldm_jax.pipelines.pipeline import open_pipeline
    from ldm_jax.pipelines.sampling import Sampling
    from ldm_jax.pipelines.text_to_image import text_to_image

    if args.list_samplers:
        print(f'samplers: {names("samplers")}\ngrids: {grids.names()}\nother names: {list(aliases.SAMPLERS)}')
        return
    sampler, grid = aliases.resolve(args.sampler, args.grid)
    sampling = Sampling(
        sampler | ({} if args.eta is None else {'eta': args.eta}),
        grid,
        args.num_steps,
        args.guidance_scale,
    )
    pipeline = open_pipeline(args.model, dtype=args.dtype)
    start = time.monotonic()
    prompts = [prompt for prompt in args.prompt for _ in range(args.num_images)]
    seeds = [args.seed + i for i in range(args.num_images)] * len(args.prompt)
    images = text_to_image(pipeline, prompts, args.negative_prompt, seed=seeds, sampling=sampling)
    print(f'{len(images)} images of {args.num_steps} steps in {time.monotonic() - start:.1f} s', flush=True)
    images = images.reshape(len(args.prompt), args.num_images, *images.shape[1:])

    scale = args.scale or (8 if images.shape[-2] <= 64 else 1)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for prompt, row in zip(args.prompt, images, strict=True):
        for i, image in enumerate(row):
            text = {'prompt': prompt, 'settings': json.dumps(vars(args) | {'prompt': prompt, 'image': i})}
            path = out / f'{file_name(prompt)}_{args.seed}_{i}.png'
            pictures.save_png(path, image, text, scale)
            print(path)
    if images[..., 0, 0, 0].size > 1:
        path = out / f'{file_name(args.prompt[0])}_{args.seed}.png'
        pictures.save_png(path, pictures.contact_sheet(images), {'prompt': ' | '.join(args.prompt)}, scale)
        print(path)


def file_name(prompt):
    """The prompt's letters and digits, for the name of a file."""
    return ''.join(c if c.isalnum() else '_' for c in prompt.lower())[:60].strip('_') or 'image'


if __name__ == '__main__':
    try:
        main(parse())
    except (FileNotFoundError, ValueError) as error:  # what the user can mend; the message says how
        sys.exit(f'error: {error}')
