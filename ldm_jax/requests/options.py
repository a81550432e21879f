"""Options beside the request: which model makes the images, how it runs, where they go. Imports nothing heavy."""

from __future__ import annotations

import dataclasses

from ldm_jax.knobs import knob


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """A model, and how it is opened; see `inference.opening.describe`."""

    model: str = knob('emoji32', str, 'shipped (emoji32), a directory, a public checkpoint, or a hub id')
    text_encoder: str | None = knob(
        None, str, 'a model whose text encoder and tokenizer are taken instead', png='Text encoder'
    )
    vae: str | None = knob(None, str, 'a model whose first stage is taken instead', png='First stage')
    embeddings: tuple[str, ...] | None = knob(
        None, str, 'files of learned words (textual inversion), or folders of them; prompts name them', many='+'
    )  # fmt: skip
    lora: tuple[str, ...] | None = knob(
        None, str, "LoRAs and their kin, with strengths: style:0.8 other.safetensors:1:0.5 (texts', then the U-Net's)",
        many='+',
    )  # fmt: skip
    adapters: str | None = knob(None, str, 'folder in which --lora and <lora:...> are found by name')
    lora_hashes: str | None = knob(
        None, str, "hashes by which they are found there too, 'name: hash, ...'", png='Lora hashes'
    )
    dtype: str = knob(
        'float32', str, 'of the computation: float32 or bfloat16', png='Dtype', among=('float32', 'bfloat16')
    )
    batch_size: int | None = knob(None, int, 'images at a time; all by default', least=1)
    seamless: str | None = knob(
        None,
        str,
        'images that continue in themselves: x, y or xy',
        png='Tiling',
        png_words={'xy': 'True', 'x': 'x', 'y': 'y'},
        among=('x', 'y', 'xy'),
    )
    window: int | None = knob(
        None, int, 'large images: the U-Net sees so many pixels square at a time', png='Window', least=1
    )
    tile: int | None = knob(
        None,
        int,
        'large images: the first stage works on so many pixels square at a time',
        png='Tile',
        least=1,
    )


@dataclasses.dataclass(frozen=True)
class Output:
    """What becomes of the images."""

    out: str = knob('samples', str, 'folder for the PNG files')
    scale: int | None = knob(
        None, int, 'each pixel becomes so many, each way; 8 by default up to 64 pixels wide', least=1
    )
    preview: int | None = knob(None, int, 'write OUT/preview.png every so many steps', least=1)
    preview_model: str | None = knob(None, str, 'a tiny autoencoder (TAESD) to preview with')
    json: bool = knob(False, bool, 'print one JSON object with paths, seeds and settings')
