"""The fields of a network that the keys and shapes of its tensors tell.

Each function takes key -> shape of one network, keys as its layout names them (no prefix of a larger file),
and returns fields of its Model. What shapes cannot tell is left out: how attention splits into heads,
activations, which layer is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints import unet_depths
from ldm_jax.checkpoints.layouts.autoencoder import NAMES

Shapes = Mapping[str, tuple[int, ...]]
Fields = dict[str, Any]


def unet(shapes: Shapes) -> Fields:
    """A U-Net in the original names.

    Raises ValueError where levels have different numbers of residual blocks.
    """
    inputs, outputs = (1 + _highest(shapes, f'{side}_blocks.') for side in ('input', 'output'))
    # A module behind the residual block, or behind its attention, changes the resolution: by a convolution, or
    # by another residual block.
    behind = [f'output_blocks.{n}.{i}' for n in range(outputs) for i in (1, 2)]
    plain = [module for module in behind if f'{module}.conv.weight' in shapes]
    residual = [module for module in behind if f'{module}.in_layers.0.weight' in shapes]
    levels = len(plain) + len(residual) + 1
    num_res_blocks = outputs // levels - 1
    if (inputs, outputs) != (levels * (num_res_blocks + 1), levels * (num_res_blocks + 1)):
        raise ValueError(
            f'This U-Net has {inputs} input blocks and {outputs} output blocks on {levels} levels; every level '
            'must have equally many residual blocks, n down and n + 1 up.'
        )
    channels, in_channels = shapes['input_blocks.0.0.weight'][:2]
    mult, down_depths, up_depths = [], [], []
    for level in range(levels):
        first = 1 + level * (num_res_blocks + 1)
        down = [f'input_blocks.{first + i}' for i in range(num_res_blocks)]
        first = (levels - 1 - level) * (num_res_blocks + 1)
        up = [f'output_blocks.{first + i}' for i in range(num_res_blocks + 1)]
        mult.append(shapes[f'{down[0]}.0.out_layers.3.weight'][0] // channels)
        down_depths.append([_depth(shapes, f'{block}.1') for block in down])
        up_depths.append([_depth(shapes, f'{block}.1') for block in up])
    middle = [n for n in (0, 2) if f'middle_block.{n}.in_layers.0.weight' in shapes]
    fields = dict(
        in_channels=in_channels,
        out_channels=shapes['out.2.weight'][0],
        channels=channels,
        channel_mult=mult,
        num_res_blocks=num_res_blocks,
        mid_depth=_depth(shapes, 'middle_block.1'),
        mid_res_blocks=len(middle),
        **unet_depths.fields(down_depths, up_depths),
        scale_shift=shapes['input_blocks.1.0.emb_layers.1.weight'][0] == 2 * channels * mult[0],
        resblock_updown=bool(residual),
    )
    context = _of_transformers(shapes, 'transformer_blocks.0.attn2.to_k.weight')
    if context:
        fields['context_width'] = context[1]
    if 'time_embed.cond_proj.weight' in shapes:
        fields['guidance_width'] = shapes['time_embed.cond_proj.weight'][1]
    if 'label_emb.0.0.weight' in shapes:
        fields['vector_width'] = shapes['label_emb.0.0.weight'][1]
    if 'label_emb.weight' in shapes:
        fields['num_classes'] = shapes['label_emb.weight'][0]
    return fields


def is_linear(shapes: Shapes) -> bool:
    """Whether the transformers of a U-Net project by matrices (SD 2, SDXL), not by 1x1 convolutions."""
    return len(_of_transformers(shapes, 'proj_in.weight')) == 2


def autoencoder(shapes: Shapes, names: str) -> Fields:
    """A KL or VQ first stage; names: a key of layouts.autoencoder.NAMES. Its 'name' is given too.

    Raises ValueError for one without quant_conv.
    """
    kind = NAMES[names]
    if 'quant_conv.weight' not in shapes:
        raise ValueError(
            'This autoencoder has no quant_conv, as those of SD 3 and Flux; vae and vq have one.'
        )
    channels, image_channels = shapes['encoder.conv_in.weight'][:2]
    mult, attention_levels, num_res_blocks = [], [], 0
    for level in itertools.count():
        down = f'encoder.{kind.down.format(level=level)}'
        width = shapes.get(f'{down}.{kind.res.format(i=0)}.conv1.weight')
        if width is None:
            break
        mult.append(width[0] // channels)
        num_res_blocks = 1 + _highest(shapes, f'{down}.{kind.res.format(i="")}')
        if f'{down}.{kind.attn.format(i=0)}.{kind.attn_norm}.weight' in shapes:
            attention_levels.append(level)
    fields = dict(
        image_channels=image_channels,
        channels=channels,
        channel_mult=mult,
        num_res_blocks=num_res_blocks,
        attention_levels=attention_levels,
        mid_attention=f'encoder.{kind.mid_attn}.{kind.attn_norm}.weight' in shapes,
    )
    width = shapes['quant_conv.weight'][0]
    if 'quantize.embedding.weight' in shapes:
        return dict(name='vq', z_channels=width, num_codes=shapes['quantize.embedding.weight'][0], **fields)
    return dict(name='vae', z_channels=width // 2, **fields)


def tiny_autoencoder(shapes: Shapes, names: str) -> Fields:
    """A TAESD pair; names: 'taesd', or 'taesd_diffusers' for those of AutoencoderTiny."""
    stem = 'encoder.layers' if names == 'taesd_diffusers' else 'encoder'
    channels, image_channels = shapes[f'{stem}.0.weight'][:2]
    last = _highest(shapes, f'{stem}.')
    num_blocks = [0]
    for n in range(1, last):
        if f'{stem}.{n}.weight' in shapes:  # a convolution that halves the sides
            num_blocks.append(0)
        else:
            num_blocks[-1] += 1
    return dict(
        name='taesd',
        z_channels=shapes[f'{stem}.{last}.weight'][0],
        image_channels=image_channels,
        channels=channels,
        num_blocks=num_blocks,
        mid_norm=any(re.match(rf'{stem}\.\d+\.pool\.', key) for key in shapes),
    )


def clip_text(shapes: Shapes, names: str) -> Fields:
    """A CLIP text tower, all layers of the file; names: 'transformers', 'transformers_flat' or 'open_clip'."""
    if names == 'open_clip':
        tokens, positions = shapes['token_embedding.weight'], shapes['positional_embedding']
        layers, projection = 'transformer.resblocks.', shapes.get('text_projection', ())[1:]
    else:
        stem = '' if names == 'transformers_flat' else 'text_model.'
        tokens = shapes[f'{stem}embeddings.token_embedding.weight']
        positions = shapes[f'{stem}embeddings.position_embedding.weight']
        layers, projection = f'{stem}encoder.layers.', shapes.get('text_projection.weight', ())[:1]
    return dict(
        name='clip_text',
        vocab_size=tokens[0],
        context_length=positions[0],
        width=tokens[1],
        num_layers=1 + _highest(shapes, layers),
        projection_width=projection[0] if projection else None,
    )


def clip_vision(shapes: Shapes, names: str) -> Fields:
    """A CLIP image tower; names as for `clip_text`."""
    if names == 'open_clip':
        patches, positions = shapes['visual.conv1.weight'], shapes['visual.positional_embedding']
        layers, projection = 'visual.transformer.resblocks.', shapes.get('visual.proj', ())[1:]
    else:
        stem = '' if names == 'transformers_flat' else 'vision_model.'
        patches = shapes[f'{stem}embeddings.patch_embedding.weight']
        positions = shapes[f'{stem}embeddings.position_embedding.weight']
        layers, projection = f'{stem}encoder.layers.', shapes.get('visual_projection.weight', ())[:1]
    side = round((positions[0] - 1) ** 0.5)  # one position more for the class token
    return dict(
        name='clip_vision',
        image_size=side * patches[-1],
        patch_size=patches[-1],
        width=patches[0],
        num_layers=1 + _highest(shapes, layers),
        projection_width=projection[0] if projection else None,
    )


def bert(shapes: Shapes) -> Fields:
    """The text transformer of latent diffusion in the original names; heads are always 8."""
    vocab_size, width = shapes['token_emb.weight']
    inner = shapes['attn_layers.layers.0.1.to_q.weight'][0]
    return dict(
        name='bert',
        vocab_size=vocab_size,
        context_length=shapes['pos_emb.emb.weight'][0],
        width=width,
        num_layers=(1 + _highest(shapes, 'attn_layers.layers.')) // 2,
        num_heads=8,
        head_width=inner // 8,
    )


def class_embedder(shapes: Shapes) -> Fields:
    num_classes, width = shapes['embedding.weight']
    return dict(name='class_embedder', num_classes=num_classes, width=width)


def spatial_rescaler(shapes: Shapes) -> Fields:
    """num_stages has no tensor: the maps come down to the latents, so the first stage tells it."""
    out_channels, in_channels = shapes['channel_mapper.weight'][:2]
    use_bias = 'channel_mapper.bias' in shapes
    return dict(
        name='spatial_rescaler', in_channels=in_channels, out_channels=out_channels, use_bias=use_bias
    )


def image_normalizer(shapes: Shapes) -> Fields:
    return dict(name='image_normalizer', width=shapes['data_mean'][-1])


def _of_transformers(shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of a tensor of a U-Net's transformers, which all share it where it is asked for; () without any."""
    found = re.compile(rf'(?:input|middle|output)_block(?:s\.\d+)?\.1\.{re.escape(name)}')
    return next((shape for key, shape in shapes.items() if found.fullmatch(key)), ())


def _highest(shapes: Shapes, stem: str) -> int:
    """The highest n of keys 'stem n.'; -1 where there is none."""
    start = len(stem)
    found = (key[start:].partition('.')[0] for key in shapes if key.startswith(stem))
    return max((int(n) for n in found if n.isdigit()), default=-1)


def _depth(shapes: Shapes, attention: str) -> int:
    """Transformer blocks of an attention, 1 for plain self-attention, 0 where there is none."""
    if f'{attention}.qkv.weight' in shapes:
        return 1
    return 1 + _highest(shapes, f'{attention}.transformer_blocks.')
