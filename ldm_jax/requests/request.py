"""Requests as plain data: prompts, numbers, names and images. Importing this imports nothing heavy.

Flags, JSON and the text in PNG files are all made from the fields here and in `inference.settings`; see `knobs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ldm_jax.inference.settings import LARGEST_SEED, Sampling
from ldm_jax.knobs import group, knob

Pair = tuple[int, int]
Image = Any  # the path of a file, its bytes, or an array; see `files`

SIZE = dict(kind=int, many=2, mark='x', form='WIDTHxHEIGHT')
MAX_PIXELS = 2**25  # 8192 x 4096; as float32 in three channels they take 400 MB
POINT = dict(kind=int, many=2, mark=',', form='LEFT,TOP')


@dataclasses.dataclass(frozen=True)
class Request:
    """Settings of images to be made; None leaves one to the task or the model."""

    prompts: tuple[str, ...] | None = knob(
        None, str, "what to show; one or several, each of parts with weights: 'a cat :1.2 AND a dog :0.8'",
        name='prompt', many='+', png='Prompt',
    )  # fmt: skip
    negative_prompt: str = knob('', str, 'what not to show', png='Negative prompt')
    styles: tuple[str, ...] | None = knob(
        None, str, 'of --styles_file: texts around the prompt and the negative prompt', many='+'
    )  # fmt: skip
    styles_file: str = knob('styles.csv', str, "the web UI's table: name,prompt,negative_prompt")
    num_images: int = knob(1, int, 'for each prompt; 4 by default, 1 with --from_png', least=1)
    seed: int = knob(
        0, int, 'of the first image of a prompt, the next ones having the next numbers; -1 draws one',
        png='Seed', within=f'[-1, {LARGEST_SEED}]',
    )  # fmt: skip
    sampling: Sampling = group(Sampling)
    weak_model: str | None = knob(
        None,
        str,
        'autoguidance: a worse version of the model, smaller or of an earlier step',
        png='Guide model',
    )
    width: int | None = knob(None, int, "the model's own by default", least=1)
    height: int | None = knob(None, int, "the model's own by default", least=1)
    original_size: Pair | None = knob(
        None,
        help='SDXL: size of the image before it was scaled, as training had it',
        png='Original size',
        **SIZE,
    )
    crop_top_left: Pair | None = knob(
        None, help='SDXL: pixels that were cropped; 0,0 by default', png='Crop top left', **POINT
    )
    target_size: Pair | None = knob(None, help='SDXL: size that the image has now', png='Target size', **SIZE)
    negative_original_size: Pair | None = knob(
        None,
        help='SDXL: the same for the negative prompt; as above by default',
        png='Negative original size',
        **SIZE,
    )
    negative_crop_top_left: Pair | None = knob(
        None, help='SDXL: likewise', png='Negative crop top left', **POINT
    )
    negative_target_size: Pair | None = knob(None, help='SDXL: likewise', png='Negative target size', **SIZE)
    init_image: Image = knob(None, str, 'an image to begin with, to edit, to upscale or to vary', image=True)
    mask: Image = knob(None, str, 'white where the image is made anew', image=True)
    strength: float | None = knob(
        None,
        float,
        'share of the steps that are taken over a given image',
        png='Denoising strength',
        within='(0, 1]',
    )
    mask_blur: float | None = knob(None, float, "in pixels, of the mask's edge", png='Mask blur', least=0)
    mask_content: str | None = knob(
        None, str, 'what the masked part begins with: original, fill, latent_noise, latent_nothing',
        png='Masked content',
        png_words={'fill': 'fill', 'original': 'original', 'latent_noise': 'latent noise',
                   'latent_nothing': 'latent nothing'},
    )  # fmt: skip
    invert_mask: bool = knob(
        False, bool, 'the black part of the mask is made anew', png='Mask mode',
        png_words={False: 'Inpaint masked', True: 'Inpaint not masked'},
    )  # fmt: skip
    mask_padding: int | None = knob(
        None,
        int,
        'work on the masked part alone, with so many pixels around it',
        png='Masked area padding',
        least=0,
    )
    resize: str = knob(
        'crop',
        str,
        'of images to another size: crop, just (stretch) or fill',
        png='Resize mode',
        among='ldm_jax.images.RESIZES',
    )
    outpaint: tuple[int, int, int, int] | None = knob(
        None, int, 'pixels to add to the left, top, right and bottom', many=4, png='Outpaint', least=0
    )
    depth: Image = knob(None, str, 'a depth map, nearer things brighter', image=True)
    noise_level: int | None = knob(
        None, int, 'of the small image, or of the embedding, before it is used', png='Noise level', least=0
    )
    mix: tuple[Image, ...] | None = knob(
        None, str, 'more images, to be mixed with --init_image before they are varied', many='+', image=True
    )
    mix_weights: tuple[float, ...] | None = knob(
        None,
        float,
        'of --init_image and of each of --mix; equal by default',
        many='+',
        png='Mix weights',
        least=0,
    )
    hires_scale: float | None = knob(
        None, float, 'a second pass, so many times larger', png='Hires upscale', least=1
    )
    hires_size: Pair | None = knob(
        None, help='a second pass at this size, in place of --hires_scale', png='Hires resize', **SIZE
    )
    hires_upscaler: str | None = knob(
        None, str, "'latent_bilinear', 'lanczos', ..., or the web UI's name", png='Hires upscaler'
    )
    hires_steps: int | None = knob(
        None, int, 'of the second pass, all of which it takes; by default its share of --num_steps',
        png='Hires steps', least=1,
    )  # fmt: skip
    refiner: str | None = knob(None, str, "SDXL's refiner, for the last steps", png='Refiner')
    refiner_start: float | None = knob(
        None, float, 'share of the time after which the refiner takes over; 0.8 by default',
        png='Refiner switch at', within='(0, 1)',
    )  # fmt: skip
    labels: tuple[int, ...] | None = knob(
        None, int, 'classes, for a model of classes', many='+', png='Class', least=0
    )
    label_map: Image = knob(None, str, 'an image whose values are classes', image=True)
    layout: Any = knob(
        None,
        str,
        'a JSON file [[class, left, top, right, bottom], ...] with sides from 0 to 1, or that text itself',
        image=True,
    )
    max_pixels: int = knob(MAX_PIXELS, int, 'that an image file may have, width x height', least=1)
    interpolate: int | None = knob(
        None, int, 'so many images on the way from each prompt to the next, or from each seed to the next',
        png='Interpolate', least=2,
    )  # fmt: skip
    share: float | None = knob(
        None, float, 'of --interpolate: only the image at this share of the way, 0 to 1',
        png='Interpolation share', within='[0, 1]',
    )  # fmt: skip
    word_hashes: str | None = knob(
        None, str, "learned words that an image was made with, 'name: hash, ...'; missing ones are named",
        png='TI hashes',
    )  # fmt: skip
    clip_skip: int = knob(1, int, "2 takes the text encoder's last layer but one", png='Clip skip', least=1)

    @property
    def size(self) -> Pair | None:
        """(H, W), or None for the model's own."""
        if self.width is None and self.height is None:
            return None
        return self.height or self.width, self.width or self.height

    @property
    def rows(self) -> Sequence[Any]:
        """What there are `per_row` images of, each: classes or prompts; ways by their first prompt."""
        if self.labels is not None:
            return self.labels
        prompts = self.prompts or ('',)
        if self.interpolate is None:
            return prompts
        return prompts[:1] * (self.num_images if len(prompts) > 1 else 1)

    @property
    def per_row(self) -> int:
        """How many images there are of each row."""
        return self.num_images if self.interpolate is None else len(self.shares)

    @property
    def shares(self) -> list[float]:
        """The share of the way of an interpolation, for each of its images."""
        last = self.interpolate - 1
        return [i / last for i in range(self.interpolate)] if self.share is None else [self.share]

    @property
    def ways(self) -> list[tuple[tuple[str, ...], list[int]]]:
        """The prompts and the seeds that each row of an interpolation passes: several of one of them."""
        prompts, seeds = self.prompts or ('',), [self.seed + i for i in range(self.num_images)]
        return [(prompts, [seed]) for seed in seeds] if len(prompts) > 1 else [(prompts, seeds)]

    @property
    def seeds(self) -> list[int]:
        """One for each image, row by row; variations have the same one."""
        if self.interpolate is not None:
            return [seeds[0] for _, seeds in self.ways for _ in self.shares]
        varied = self.sampling.variation_seed is not None
        return [self.seed + (0 if varied else i) for i in range(self.num_images)] * len(self.rows)

    @property
    def variation_seeds(self) -> list[int] | None:
        """One for each image, row by row, where they are variations."""
        first = self.sampling.variation_seed
        if first is None:
            return None
        return [first + i for i in range(self.num_images)] * len(self.rows)

    def repeated(self, rows: Sequence[Any]) -> list[Any]:
        """One of the rows for each image."""
        return [row for row in rows for _ in range(self.per_row)]
