"""Makes images: from prompts, from other images, and from whatever else a model is told.

    python tools/sample.py --prompt "a red apple, noto style" [--num_images 4 --seed 1 --guidance_scale 3]
    python tools/sample.py --model MODEL --prompt "..." --init_image photo.png [--mask hole.png] [--strength 0.7]

Writes one PNG for each image, with its seed and settings as text in the form of A1111's web UI, and for several a
sheet with a row for each prompt. --from_png takes settings from such a file, the web UI's or ours.
"""

from ldm_jax import command_line

MEMORY = 'a smaller --batch_size, --tile or --window (256, for example), a smaller size, or --dtype bfloat16'
HELP = {
    'negative_prompt': 'what the image should not show',
    'num_images': 'for each prompt; 4 by default, 1 with --from_png',
    'seed': 'of the first image of a prompt; the next ones have the next numbers',
    'num_steps': '20 by default',
    'guidance_scale': "1 is no guidance; the model's own by default, or 7.5",
    'guidance_rescale': 'against overexposure, 0 to 1; 0.7 where noise ends at no signal',
    'guidance_rule': "'linear', 'projected' (APG) or 'zero_star'",
    'guidance_interval': 'lowest and highest sigma / alpha with guidance: 0.3 5',
    'apg_eta': "of the rule 'projected': share of the part that saturates, 0 by default",
    'apg_threshold': "of the rule 'projected': the longest that the pull of guidance may be",
    'perturbed_scale': 'of perturbed-attention guidance, 3 for example',
    'weak_model': 'autoguidance: a worse version of the model to guide away from, smaller or of an earlier step',
    'autoguidance_scale': 'of autoguidance, 2 for example; in place of --guidance_scale, or beside it',
    'cfg_zero_share': 'CFG-Zero*: share of the time, from the start, without a movement; 0.04 for example, flow models',
    'percentile': 'dynamic thresholding, 0.995 for example, of latents that are in [-1, 1] as images are',
    'sampler': "ours, or a name of A1111, ComfyUI or diffusers: 'DPM++ 2M Karras'",
    'grid': "the levels: 'trailing', 'karras', ..., or such a name",
    'eta': 'of samplers that have it: 0 is deterministic for most',
    'noise_source': "of the starting noise: 'jax', 'torch_cpu' (the web UI's CPU), 'torch_cuda' (its GPU and NV)",
    'start': "starting noise is scaled to the first level's 'noise' (A1111), or its 'total' (diffusers)",
    'width': "the model's own by default",
    'height': "the model's own by default",
    'original_size': 'SDXL: WIDTHxHEIGHT that the image is told to have had before it was scaled',
    'crop_top_left': 'SDXL: LEFT,TOP pixels that it is told to have been cropped by; 0,0 by default',
    'target_size': 'SDXL: WIDTHxHEIGHT that it is told to have now',
    'negative_original_size': 'SDXL: the same of what the image should not be like; as above by default',
    'negative_crop_top_left': 'SDXL: likewise',
    'negative_target_size': 'SDXL: likewise',
    'init_image': 'an image to begin with, to edit, to upscale or to vary',
    'mask': 'white where the image is made anew',
    'strength': 'share of the steps that are taken over a given image, above 0 and at most 1',
    'mask_blur': "in pixels, of the mask's edge",
    'mask_content': "what the masked part begins with: 'original', 'fill', 'latent_noise', 'latent_nothing'",
    'mask_padding': 'work on the masked part alone, with so many pixels around it',
    'resize': "of images to another size: 'crop', 'just' (stretch) or 'fill'",
    'outpaint': 'pixels to add to the left, top, right and bottom',
    'depth': 'a depth map, nearer things brighter',
    'image_guidance_scale': 'how much of the image an edit keeps; 1.5 by default',
    'noise_level': 'of the small image, or of the embedding, before it is used',
    'mix': 'more images, to be mixed with --init_image before they are varied',
    'mix_weights': 'of --init_image and of each of --mix; equal by default',
    'hires_scale': 'a second pass, so many times larger',
    'hires_upscaler': "'latent_bilinear', 'lanczos', ..., or the web UI's name",
    'hires_steps': 'of the second pass, all of which it takes; by default its share of --num_steps',
    'refiner': "SDXL's refiner, for the last steps",
    'refiner_start': 'share of the time after which the refiner takes over; 0.8 by default',
    'labels': 'classes, for a model of classes',
    'label_map': 'an image whose values are classes',
    'layout': 'a JSON file [[class, left, top, right, bottom], ...]',
    'clip_skip': "2 takes the text encoder's last layer but one",
}
MANY = {'outpaint': 4, 'guidance_interval': 2, 'labels': '+', 'mix': '+', 'mix_weights': '+'}
KINDS = {
    'num_images': int, 'seed': int, 'num_steps': int, 'width': int, 'height': int, 'mask_padding': int,
    'noise_level': int, 'outpaint': int, 'labels': int, 'clip_skip': int, 'hires_steps': int, 'mix_weights': float,
    'guidance_scale': float, 'guidance_rescale': float,
    'guidance_interval': float, 'perturbed_scale': float, 'apg_eta': float, 'apg_threshold': float,
    'autoguidance_scale': float, 'cfg_zero_share': float, 'percentile': float,
    'eta': float, 'strength': float, 'mask_blur': float, 'hires_scale': float,
    'image_guidance_scale': float, 'refiner_start': float,
}  # fmt: skip


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add = parser.add_argument
    add(
        '--prompt',
        nargs='+',
        help="what the image should show; one or several, each of parts with weights: 'a cat :1.2 AND a dog :0.8'",
    )
    add('--prompts_file', help='a text with a prompt on each line')
    add('--from_png', help='take settings from an image; flags that are given count more')
    add('--model', default='emoji32', help='shipped (emoji32), a directory, a public checkpoint, or a hub id')
    add('--out', default='samples', help='folder for the PNG files')
    for name, text in HELP.items():
        add(f'--{name}', type=KINDS.get(name, str), nargs=MANY.get(name), help=text)
    add('--dtype', default='float32', choices=['float32', 'bfloat16'], help='of the computation')
    add('--batch_size', type=int, help='images at a time; all by default')
    add('--seamless', choices=['x', 'y', 'xy'], help='images that continue in themselves')
    add('--window', type=int, help='large images: the U-Net sees so many pixels square at a time')
    add('--tile', type=int, help='large images: the first stage works on so many pixels square at a time')
    add('--preview', type=int, help='write OUT/preview.png every so many steps')
    add('--preview_model', help='a tiny autoencoder (TAESD) to preview with')
    add('--scale', type=int, help='each pixel becomes so many, each way; 8 by default up to 64 pixels wide')
    add('--json', action='store_true', help='print one JSON object with paths, seeds and settings')
    add('--list_samplers', action='store_true', help='print the names of samplers and grids')
    args = parser.parse_args()
    for name in ('scale', 'batch_size', 'preview', 'window', 'tile'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1; got {getattr(args, name)}.')
    return args


def main(args):
    from ldm_jax.requests import command

    if args.list_samplers:
        print(command.listing())
        return
    given = {name: getattr(args, name) for name in HELP if getattr(args, name) is not None}
    request = command.request(given, args.prompt, args.prompts_file, args.from_png)
    command.run(
        request,
        args.model,
        args.out,
        dtype=args.dtype,
        batch_size=args.batch_size,
        preview=args.preview,
        preview_model=args.preview_model,
        scale=args.scale,
        as_json=args.json,
        seamless=args.seamless,
        window=args.window,
        tile=args.tile,
    )


if __name__ == '__main__':
    command_line.run(main, parse, MEMORY)
