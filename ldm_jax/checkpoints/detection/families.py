"""What public models of one kind share beyond the shapes of their tensors, and how each kind is recognized.

FAMILIES is a table: the first row whose predicate holds of what was read of a file is its family. Adding a
kind of model is adding a row. OTHERS is the same for files that hold no such model.

Heads are the family's also where a network is narrower than the published: 8 of them in Stable Diffusion 1, of
width 64 in 2 and SDXL. A narrow network with other heads needs its config's name; shapes cannot tell.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.checkpoints.detection import infer_shapes
from ldm_jax.checkpoints.layouts.single_file import Place

MODEL = "Name a config with --model (model='sd15'), which says what shapes do not."
SD_BETAS = (0.00085, 0.012)


@dataclasses.dataclass(frozen=True)
class Tower:
    """What a family makes of a CLIP text tower; the widths are published ones, heads are 64 wide in all."""

    activation: str  # OpenAI's approximation 'quick_gelu', or 'gelu': OpenCLIP
    pad_id: int
    output_layer: int = -1
    final_norm: bool = True
    projection: bool = False  # whether the projected vector is used
    cut: bool = False  # whether the last layer is never computed, and not kept


CLIP_L = Tower('quick_gelu', 49407)
CLIP_L_HIDDEN = Tower('quick_gelu', 49407, output_layer=-2, final_norm=False)
CLIP_L_PROJECTED = Tower('quick_gelu', 49407, projection=True)
OPEN_CLIP_H = Tower('gelu', 0, cut=True)
OPEN_CLIP_BIGG = Tower('gelu', 0, output_layer=-2, final_norm=False, projection=True)
BY_WIDTH = {768: CLIP_L, 1024: OPEN_CLIP_H, 1280: OPEN_CLIP_BIGG}  # of a text tower alone in its file
IMAGE_ACTIVATIONS = {1024: 'quick_gelu', 1280: 'gelu'}  # ViT-L/14, ViT-H/14
IMAGE_HEADS = 16  # of both
HEAD_WIDTH = 64  # of all text towers


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was read of a file, for the predicates of FAMILIES."""

    specs: Mapping[str, Any]
    places: Mapping[str, Place]
    parts: Mapping[str, dict[str, Any]]  # part -> fields, as far as shapes tell them

    @property
    def unet(self) -> dict[str, Any]:
        return self.parts['unet']

    @property
    def context(self) -> int | None:
        return self.unet.get('context_width')

    @property
    def linear(self) -> bool:
        """Whether transformers project by matrices, which Stable Diffusion 2 began with."""
        return infer_shapes.is_linear(below(self.specs, self.places['unet'].prefix))

    @property
    def concat(self) -> int:
        """Channels behind the latents."""
        return self.unet['in_channels'] - self.unet['out_channels']

    @property
    def kind(self) -> str | None:
        """What encodes the condition: the names of text_encoder, 'classes', or None: a U-Net on its own."""
        if 'class_embedder' in self.parts:
            return 'classes'
        return self.places['text_encoder'].names if 'text_encoder' in self.places else None

    @property
    def prefix(self) -> str:
        """Where the text encoder is; '' without one."""
        return self.places['text_encoder'].prefix if 'text_encoder' in self.places else ''

    def alone_with(self, width: int) -> bool:
        """Whether there is no encoder in the file, and the U-Net reads one of this width."""
        return self.kind is None and self.context == width


@dataclasses.dataclass(frozen=True)
class Family:
    """What public models of one kind share beyond shapes."""

    name: str
    known_by: Callable[[Facts], Any]
    heads: Mapping[str, int]  # of the U-Net: num_heads or head_width
    parameterization: str | None = 'eps'  # None: there are both
    scaling_factor: float | None = 0.18215  # None: it is in the file
    betas: tuple[float, float] = SD_BETAS  # where the file has no table of them
    image_size: int = 512
    v_image_size: int | None = None  # where the model that predicts v was trained for another one
    sidecar_size: bool = False  # whether the YAML's image_size is that of the latents
    downscale: int = 8  # of the first stage, where the file has none
    text: Tower | None = None
    text_2: Tower | None = None
    cross_attention_only: bool = False  # on all levels but the lowest
    context_length: int | None = None  # of the context; None: that of the text encoder, or 77


HEADS_8, HEADS_1 = dict(num_heads=8), dict(num_heads=1)
WIDE_64, WIDE_32 = dict(head_width=64), dict(head_width=32)
LDM = dict(scaling_factor=1.0, image_size=256, downscale=4)

# The first row that fits. Latent diffusion, Stable Diffusion 1 and SDXL predict eps: nobody has published one of
# them with v but as a fine-tuned model that says so (a flag key, metadata), and those words go before the table.
FAMILIES = (
    # A vector beside the time: unCLIP's image embedding, or SDXL's sizes.
    Family(
        'sd21_unclip',
        lambda f: (
            'vector_width' in f.unet
            and ('image_encoder' in f.parts or f.alone_with(1024) or f.prefix.startswith('cond_stage_model.'))
        ),
        WIDE_64,
        parameterization='v',
        image_size=768,
        text=OPEN_CLIP_H,
    ),
    Family(
        'sdxl_refiner',  # reads OpenCLIP alone
        lambda f: 'vector_width' in f.unet and (f.kind == 'open_clip' or f.alone_with(1280)),
        WIDE_64,
        scaling_factor=0.13025,
        image_size=1024,
        text=OPEN_CLIP_BIGG,
    ),
    Family(
        'sdxl',
        lambda f: 'vector_width' in f.unet,
        WIDE_64,
        scaling_factor=0.13025,
        image_size=1024,
        text=CLIP_L_HIDDEN,
        text_2=OPEN_CLIP_BIGG,
    ),
    # Only the upscaler has a table of labels: the noise levels of the small image.
    Family(
        'x4_upscaler',
        lambda f: 'num_classes' in f.unet,
        HEADS_8,
        parameterization='v',
        scaling_factor=0.08333,
        betas=(0.0001, 0.02),
        downscale=4,
        text=OPEN_CLIP_H,
        cross_attention_only=True,
    ),
    # Matrices as projections. Depth and inpainting were trained from the eps model, without a v twin.
    Family('sd2_depth', lambda f: f.linear and f.concat == 1, WIDE_64, text=OPEN_CLIP_H),
    Family('sd2_inpainting', lambda f: f.linear and f.concat == 5, WIDE_64, text=OPEN_CLIP_H),
    Family('sd2', lambda f: f.linear, WIDE_64, parameterization=None, text=OPEN_CLIP_H, v_image_size=768),
    # A context through convolutions. A single head is guided ImageNet's, whose first stage has 3 channels.
    Family(
        'ldm_cin256_v2',
        lambda f: (
            f.unet['out_channels'] == 3
            and (f.kind == 'classes' or (f.alone_with(512) and f.unet['mid_depth'] == 1))
        ),
        HEADS_1,
        betas=(0.0015, 0.0195),
        context_length=1,
        **LDM,
    ),
    Family(
        'ldm_cin256',
        lambda f: f.kind == 'classes' or (f.alone_with(512) and f.unet['mid_depth'] == 1),
        WIDE_32,
        betas=(0.0015, 0.0195),
        context_length=1,
        **LDM | dict(downscale=8),
    ),
    Family(
        'ldm_layout2img',  # three transformer blocks an attention
        lambda f: f.context and f.unet['mid_depth'] == 3,
        WIDE_32,
        betas=(0.0015, 0.0205),
        **LDM,
    ),
    Family(
        'ldm_text2img256',  # a VQ first stage with 3 channels
        lambda f: f.unet['out_channels'] == 3 and (f.kind == 'bert' or f.alone_with(640)),
        WIDE_32,
        betas=(0.0015, 0.0195),
        **LDM,
    ),
    Family(
        'ldm_txt2img_1p4b',
        lambda f: f.kind == 'bert' or f.alone_with(1280),
        HEADS_8,
        image_size=256,
    ),
    Family(
        'rdm768',  # latents of KL-f16; the original files hold no encoder
        lambda f: f.context and f.unet['out_channels'] == 16,
        WIDE_32,
        scaling_factor=0.22765929,
        betas=(0.0015, 0.015),
        image_size=768,
        downscale=16,
        text=CLIP_L_PROJECTED,
        context_length=1,
    ),
    Family('sd1', lambda f: f.context, HEADS_8, text=CLIP_L),
    # Plain self-attention.
    Family(
        'ldm_semantic_synthesis256',  # no attention but in the middle
        lambda f: 'rescaler' in f.parts or not any(f.unet['depth']),
        HEADS_8,
        betas=(0.0015, 0.0205),
        sidecar_size=True,
        **LDM,
    ),
    Family(
        'ldm_lsun_churches256',
        lambda f: f.unet['scale_shift'],
        HEADS_8,
        betas=(0.0015, 0.0155),
        **LDM | dict(scaling_factor=None, downscale=8),
    ),
    Family(
        'ldm_inpainting_big',
        lambda f: f.unet['resblock_updown'],
        HEADS_8,
        betas=(0.0015, 0.0205),
        **LDM,
    ),
    Family('ldm_bsr_sr', lambda f: f.concat == 3, WIDE_32, betas=(0.0015, 0.0155), **LDM),
    Family('ldm_unconditional', lambda f: True, WIDE_32, betas=(0.0015, 0.0195), **LDM),
)


def _any(pattern: str) -> Callable[[Mapping[str, Any]], bool]:
    found = re.compile(pattern)
    return lambda specs: any(found.search(key) for key in specs)


# What files of other things look like; the first that fits is named in the error.
OTHERS = (
    (
        'a LoRA or one of its kin, which is given as --lora beside the --model that it was made for',
        _any(r'^(lora|lycoris)_|\.(lora|hada|lokr)_|\.lora[._](A|B|up|down)\b|^bundle_emb|_lora\.'),
    ),
    ('a ControlNet', _any(r'^(control_model|controlnet_\w+)\.|(^|\.)input_hint_block\.')),
    ('a transformer of Stable Diffusion 3', _any(r'(^|\.)joint_blocks\.\d')),
    ('a transformer of the Flux family', _any(r'(^|\.)(double|single)_(blocks|stream)')),
    (
        'an embedding of new words (textual inversion), not a model: it goes into the prompts of the model that it '
        'was made for, which is to be given here; embeddings themselves are not read yet',
        _any(r'^(string_to_(param|token)|emb_params$|clip_[lg]$|<|\*$)'),
    ),
    ('a hypernetwork', _any(r'^(320|640|768|1024|1280)\.\d\.linear\.')),
    (
        "a U-Net in diffusers' names, to be read from its folder (with its config.json)",
        _any(r'^(unet\.)?down_blocks\.\d+\.(resnets|attentions)\.'),
    ),
    ('a motion module for video', _any(r'motion_modules?\.|\.time_stack\.')),
    (
        'a classifier',
        _any(r'^(fc|classifier|head)\.(weight|bias)$|^layer4\.\d|^out\.\d\.positional_embedding$'),
    ),
)


def below(specs: Mapping[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the keys below a prefix, which they lose."""
    return {key[len(prefix) :]: tuple(spec.shape) for key, spec in specs.items() if key.startswith(prefix)}
