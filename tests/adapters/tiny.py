"""Small pipelines of diffusers and the same weights here, and adapters of random numbers for their layers."""

import functools

import diffusers
import numpy as np
import torch
import transformers

from ldm_jax import build
from ldm_jax.checkpoints.layouts import diffusers_unet, transformers_clip
from tests import oracles

UNET = dict(name='unet', channels=16, channel_mult=(1, 2), num_res_blocks=1, depth=(1, 0), num_groups=4)
TEXT = dict(name='clip_text', vocab_size=60, num_layers=2, num_heads=2, end_id=59)
MODELS = {
    'sd1': dict(unet=dict(UNET, num_heads=4, context_width=12), text_encoder=dict(TEXT, width=12)),
    'sd2': dict(unet=dict(UNET, head_width=64, channels=64, context_width=12), text_encoder=dict(TEXT, width=12)),
    'sdxl': dict(
        unet=dict(UNET, channels=64, depth=(1, 2), mid_depth=2, head_width=64, context_width=28, vector_width=36),
        text_encoder=dict(TEXT, width=12, output_layer=-2, final_norm=False),
        text_encoder_2=dict(TEXT, width=16, projection_width=12, output_layer=-2, final_norm=False),
    ),
}  # fmt: skip


def models(name):
    """The networks of a family, ours."""
    return build.parts(dict(models=MODELS[name]))


@functools.cache
def torch_models(name):
    """The same networks of diffusers and transformers, with random weights."""
    ours = models(name)
    unet = ours['unet']
    attention = [bool(depth) for depth in unet.depth]
    heads = unet.num_heads if name == 'sd1' else tuple(unet.channels * m // 64 for m in unet.channel_mult)
    more = {}
    if name == 'sdxl':
        more = dict(
            addition_embed_type='text_time', addition_time_embed_dim=4, projection_class_embeddings_input_dim=36,
            transformer_layers_per_block=(1, 2),
        )  # fmt: skip
    made = dict(
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=tuple(unet.channels * m for m in unet.channel_mult),
            down_block_types=tuple('CrossAttnDownBlock2D' if a else 'DownBlock2D' for a in attention),
            up_block_types=tuple('CrossAttnUpBlock2D' if a else 'UpBlock2D' for a in attention[::-1]),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=heads,
            cross_attention_dim=unet.context_width,
            use_linear_projection=name != 'sd1',
            **more,
        )
    )
    for part in ('text_encoder', 'text_encoder_2'):
        if part not in ours:
            continue
        kind = (
            transformers.CLIPTextModelWithProjection
            if part == 'text_encoder_2'
            else transformers.CLIPTextModel
        )
        made[part] = kind(
            transformers.CLIPTextConfig(
                vocab_size=60, hidden_size=ours[part].width, intermediate_size=4 * ours[part].width,
                num_hidden_layers=2, num_attention_heads=2, projection_dim=12, eos_token_id=59,
            )
        )  # fmt: skip
    for i, module in enumerate(made.values()):
        oracles.randomize(module, i)
    return made


def pipeline(name):
    """A pipeline of diffusers of copies of those networks, which adapters may be loaded into."""
    import copy

    kind = diffusers.StableDiffusionXLPipeline if name == 'sdxl' else diffusers.StableDiffusionPipeline
    wanted = kind._get_signature_keys(kind)[0]
    parts = {part: copy.deepcopy(module) for part, module in torch_models(name).items()}
    parts['scheduler'] = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    return kind(**{part: parts.get(part) for part in wanted})


def params_of(name, modules):
    """Our parameters, part -> tree, of torch's modules by part."""
    found = {}
    for part, model in models(name).items():
        state = oracles.tensors(modules[part])
        if part == 'unet':
            layout = diffusers_unet.layout(model, linear_projection=name != 'sd1')
        else:
            layout = transformers_clip.layout(
                model, nested=any(key.startswith('text_model.') for key in state)
            )
        known = {key: array for key, array in state.items() if layout.ignored(key) is None}
        found[part] = oracles.params_like(model, layout, known)
    return found


def named_layers(name, part):
    """Name -> weight's shape of the linear layers and convolutions of a torch module, as torch itself names them."""
    module = torch_models(name)[part]
    found = {}
    for key, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            key = f'text_model.{key}' if part != 'unet' and not key.startswith('text') else key
            found[key] = tuple(layer.weight.shape)
    found.pop('text_projection', None)
    found.pop('text_model.text_projection', None)
    return found


def lora(shape, rank=2, seed=0):
    """Random (up, down) for a weight of a shape."""
    normal = np.random.default_rng(seed).standard_normal
    o, i, *kernel = shape
    down = normal((rank, i, *kernel)).astype(np.float32) / i**0.5
    return normal((o, rank, *(1,) * len(kernel))).astype(np.float32), down
