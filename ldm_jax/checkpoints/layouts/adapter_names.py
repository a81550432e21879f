"""The names of adapters' files: layers of a model and tensors beside them, in every spelling that is in use.

    kohya         lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight
                  lora_unet_input_blocks_1_1_proj_in.lora_up.weight in sgm's names
                  lora_te_text_model_encoder_layers_0_mlp_fc1.alpha, SDXL lora_te1_, lora_te2_
    diffusers     unet.down_blocks.0....attn1.to_q.lora_A.weight  first: ....attn1.processor.to_q_lora.down.weight
    PEFT          base_model.model.down_blocks.0....attn1.to_q.lora_A.weight
    LyCORIS       lycoris_down_blocks_0_attentions_0_proj_in.hada_w1_a, and kohya's
    ComfyUI       diffusion_model.input_blocks.1.1.proj_in.lora_up.weight, text_encoders.clip_l.transformer....
    cloneofsimo   unet:0:up, numbered in the order of its own search

Names are never split at '_', which they contain: a table of all layers in each spelling is made from the model's own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import flax.linen as nn

from ldm_jax.checkpoints.diffusers import conditional_unet
from ldm_jax.checkpoints.layouts import compvis_unet, diffusers_unet, transformers_clip
from ldm_jax.checkpoints.layouts.rules import Layout
from ldm_jax.models import clip_text, unet

# The tensor behind a layer's name in a file -> as ldm_jax/adapters calls it.
TENSORS = {
    'lora_up.weight': 'lora_up', 'lora_down.weight': 'lora_down', 'lora_mid.weight': 'lora_mid',
    'lora_B.weight': 'lora_up', 'lora_A.weight': 'lora_down',
    'lora_B.default.weight': 'lora_up', 'lora_A.default.weight': 'lora_down',
    'lora.up.weight': 'lora_up', 'lora.down.weight': 'lora_down',
    'lora_linear_layer.up.weight': 'lora_up', 'lora_linear_layer.down.weight': 'lora_down',
    'alpha': 'alpha', 'scale': 'scale',
    'dora_scale': 'dora_scale', 'lora_magnitude_vector': 'magnitude', 'lora_magnitude_vector.weight': 'magnitude',
    'lora_magnitude_vector.default.weight': 'magnitude',
    **{name: name for name in ('hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b', 'hada_t1', 'hada_t2')},
    **{name: name for name in ('lokr_w1', 'lokr_w1_a', 'lokr_w1_b', 'lokr_w2', 'lokr_w2_a', 'lokr_w2_b', 'lokr_t2')},
    **{f'{name}.weight': name for name in ('a1', 'a2', 'b1', 'b2')},
    'weight': 'weight', 'on_input': 'on_input', 'ia3_l': 'ia3_l',
    'oft_blocks': 'oft_blocks', 'oft_diag': 'oft_diag', 'rescale': 'rescale', 'oft_R.weight': 'oft_R',
    'w_norm': 'w_norm', 'b_norm': 'b_norm', 'diff': 'diff', 'diff_b': 'diff_b',
}  # fmt: skip
# The first diffusers put the tensor into the layer's own name: .to_q_lora.down, of .to_q, .to_out_lora, of .to_out.0.
PROCESSOR = re.compile(r'(.*\.attn[12])\.(?:processor\.)?to_(q|k|v|out)_lora\.(up|down)\.weight')
PROCESSOR_TEXT = re.compile(r'(.*\.self_attn)\.to_(q|k|v|out)_lora\.(up|down)\.weight')
NUMBERED = re.compile(r'(unet|text_encoder):(\d+):(up|down)')  # of cloneofsimo
PREFIXES = {
    'unet': ('unet.', '', 'base_model.model.', 'unet.base_model.model.'),
    'text_encoder': ('text_encoder.', '', 'base_model.model.', 'text_encoder.base_model.model.',
                     'text_encoders.clip_l.transformer.', 'text_encoders.clip_h.transformer.'),
    'text_encoder_2': ('text_encoder_2.', 'text_encoder_2.base_model.model.', 'text_encoders.clip_g.transformer.'),
}  # fmt: skip
ORIGINAL = ('diffusion_model.', 'model.diffusion_model.')
KOHYA = {
    'unet': ('lora_unet_', 'lycoris_', 'oft_unet_'),
    'text_encoder': ('lora_te_', 'lora_te1_'),
    'text_encoder_2': ('lora_te2_',),
}
TEXT = 'text_model.'  # transformers since 5.6 leave this level out


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that adapters may change.

    Attributes:
        part: 'unet', 'text_encoder' or 'text_encoder_2'.
        name: diffusers', 'down_blocks.0.attentions.0.proj_in'; of text encoders transformers', with 'text_model.'.
        original: the U-Net's original name, 'input_blocks.1.1.proj_in'; the same name for text encoders.
        path: of the module below the part, 'down_0_attn_0/proj_in'.
        leaf: of its weight: 'kernel', or 'scale' of a norm.
        window: the weight's trailing axes of size 1 in torch, of 1x1 convolutions that are matrices here.
    """

    part: str
    name: str
    original: str
    path: str
    leaf: str
    window: int = 0

    @property
    def weight(self) -> str:
        """The path of the weight among a model's parameters."""
        return f'{self.part}/{self.path}/{self.leaf}'

    @property
    def bias(self) -> str:
        """The path of the bias among a model's parameters, which may not be there."""
        return f'{self.part}/{self.path}/bias'


def layers(models: Mapping[str, nn.Module]) -> dict[tuple[str, str], Layer]:
    """(part, name) -> layer of all that adapters may change in a model's networks.

    Those are U-Nets and CLIP text towers; other parts have no names in such files.
    """
    found = {}
    for part in PREFIXES:
        model = models.get(part)
        if isinstance(model, unet.Model):
            linear = conditional_unet.linear_projection(model)
            names = _modules(diffusers_unet.layout(model, linear))
            originals = _modules(compvis_unet.layout(model, linear))
        elif isinstance(model, clip_text.Model):
            names = originals = _modules(transformers_clip.layout(model))
        else:
            continue
        for weight, (name, window) in names.items():
            path, _, leaf = weight.rpartition('/')
            original = originals.get(weight, (name, 0))[0]
            found[part, name] = Layer(part, name, original, path, leaf, window)
    return found


def spellings(known: Iterable[Layer]) -> dict[str, Layer]:
    """Every spelling of every layer's name -> the layer; unique for the networks of SD 1, SD 2 and SDXL."""
    known = list(known)
    found: dict[str, Layer] = {}
    for layer in known:
        names = [layer.name] + [layer.name.removeprefix(TEXT)] * layer.name.startswith(TEXT)
        for prefix in PREFIXES[layer.part]:
            found |= {prefix + name: layer for name in names}
        for prefix in KOHYA[layer.part]:
            found |= {prefix + name.replace('.', '_'): layer for name in (*names, layer.original)}
        if layer.part == 'unet':
            found |= {prefix + layer.original: layer for prefix in ORIGINAL}
    return found


def find(key: str, table: Mapping[str, Layer]) -> tuple[Layer, str] | None:
    """The layer and the tensor that a file's key names, or None for a key of neither."""
    for pattern, names in (
        (PROCESSOR, dict(q='to_q', k='to_k', v='to_v', out='to_out.0')),
        (PROCESSOR_TEXT, dict(q='q_proj', k='k_proj', v='v_proj', out='out_proj')),
    ):
        if match := pattern.fullmatch(key):
            head, name, which = match.groups()
            layer = table.get(f'{head}.{names[name]}')
            return None if layer is None else (layer, f'lora_{which}')
    at = key.find('.')
    while at > 0:  # the longest tensor's name first
        if key[at + 1 :] in TENSORS and key[:at] in table:
            return table[key[:at]], TENSORS[key[at + 1 :]]
        at = key.find('.', at + 1)
    return None


def numbered(known: Mapping[tuple[str, str], Layer], with_gates: bool = True) -> dict[str, list[Layer]]:
    """The layers in cloneofsimo's order by part: its search goes down, up and the middle last.

    with_gates: the feed-forward's first layer (GEGLU) is among them, between the two attentions.
    """
    blocks = dict.fromkeys(
        name.rpartition('.attn1.')[0] for part, name in known if part == 'unet' and '.attn1.' in name
    )
    order = ('attn1.to_q', 'attn1.to_k', 'attn1.to_v', 'attn1.to_out.0', 'ff.net.0.proj',
             'attn2.to_q', 'attn2.to_k', 'attn2.to_v', 'attn2.to_out.0')  # fmt: skip
    sides = [[block for block in blocks if block.startswith(side)] for side in ('down', 'up', 'mid')]
    unets = [
        known['unet', f'{block}.{layer}']
        for side in sides
        for block in side
        for layer in order
        if with_gates or layer != 'ff.net.0.proj'
    ]
    text, i = [], 0
    while ('text_encoder', f'{TEXT}encoder.layers.{i}.self_attn.k_proj') in known:
        text += [
            known['text_encoder', f'{TEXT}encoder.layers.{i}.self_attn.{name}_proj']
            for name in ('k', 'v', 'q', 'out')
        ]
        i += 1
    return dict(unet=unets, text_encoder=text)


def _modules(layout: Layout) -> dict[str, tuple[str, int]]:
    """Path of a weight -> (the torch module that holds it, its trailing axes of size 1)."""
    found = {}
    for rule in layout.rules:
        if len(rule.torch) == 1 and rule.torch[0].endswith('.weight'):
            (path,) = rule.flax
            if path.endswith(('/kernel', '/scale')):
                found[path] = (rule.torch[0].removesuffix('.weight'), _window(rule))
    return found


def _window(rule) -> int:
    """How many trailing axes of size 1 a rule gives a matrix."""
    import numpy as np

    if not rule.flax[0].endswith('/kernel'):
        return 0
    try:
        return rule.to_torch((np.broadcast_to(np.int8(0), (2, 3)),))[0].ndim - 2
    except ValueError:  # a convolution's four axes
        return 0
