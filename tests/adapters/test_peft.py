"""Adapters as PEFT saves them, with their settings beside them: what it merges is what is made here."""

import copy
import json

import numpy as np
import peft
import pytest
import torch

from ldm_jax.adapters import files, kinds
from tests.adapters import tiny
from tests.oracles import float64, relative_error
from tests.tiers import fast

TARGETS = ['attn1.to_q', 'attn2.to_k', 'ff.net.2']
CONVOLUTIONS = [*TARGETS, 'resnets.0.conv1', 'resnets.0.conv_shortcut']
CONFIGS = {
    'lora': peft.LoraConfig(r=3, lora_alpha=2, target_modules=CONVOLUTIONS),
    'rank-stabilized': peft.LoraConfig(r=3, lora_alpha=2, use_rslora=True, target_modules=TARGETS),
    'patterns': peft.LoraConfig(
        r=3,
        lora_alpha=2,
        target_modules=TARGETS,
        rank_pattern={'attn2.to_k': 2},
        alpha_pattern={'ff.net.2': 7},
    ),
    'dora': peft.LoraConfig(r=3, lora_alpha=2, use_dora=True, target_modules=CONVOLUTIONS),
    'loha': peft.LoHaConfig(r=3, alpha=2, target_modules=CONVOLUTIONS, use_effective_conv2d=True),
    'lokr': peft.LoKrConfig(r=2, alpha=3, target_modules=CONVOLUTIONS, decompose_both=True),
    'ia3': peft.IA3Config(target_modules=TARGETS, feedforward_modules=['ff.net.2']),
    'oft': peft.OFTConfig(oft_block_size=4, r=0, target_modules=TARGETS, use_cayley_neumann=False),
    'oft by a series': peft.OFTConfig(oft_block_size=4, r=0, target_modules=TARGETS, use_cayley_neumann=True),
}


@pytest.mark.parametrize('name', fast(2, CONFIGS))
def test_weights_are_those_that_peft_merges(name, tmp_path):
    net = copy.deepcopy(tiny.torch_models('sd1')['unet']).double()
    base = {key: value.detach().numpy().copy() for key, value in net.state_dict().items()}
    model = peft.get_peft_model(net, CONFIGS[name]).double()
    for parameter in model.parameters():
        if parameter.requires_grad:
            normal = np.random.default_rng(parameter.numel()).standard_normal(tuple(parameter.shape))
            with torch.no_grad():
                parameter.copy_(parameter + torch.tensor(0.1 * normal))
    model.double().save_pretrained(tmp_path)
    theirs = {key: value.detach().numpy() for key, value in model.merge_and_unload().state_dict().items()}
    adapter = files.read(files.locate(str(tmp_path)), tiny.models('sd1'))
    moved = {key for key in base if not np.array_equal(base[key], theirs[key])}
    assert moved == {f'{layer.name}.weight' for layer in adapter.changes}
    for layer, change in adapter.changes.items():
        key = f'{layer.name}.weight'
        with float64():
            ours = np.asarray(kinds.changed(change.kind, change.tensors, base[key]))
        assert relative_error(ours - base[key], theirs[key] - base[key]) < 1e-6, (name, key)


def test_settings_that_are_no_json_are_named(tmp_path):
    net = tiny.torch_models('sd1')['unet']
    peft.get_peft_model(copy.deepcopy(net), CONFIGS['lora']).save_pretrained(tmp_path)
    for text, message in (('{', 'is no JSON'), ('[]', 'is no JSON object')):
        (tmp_path / 'adapter_config.json').write_text(text)
        with pytest.raises(ValueError, match=f'adapter_config.json {message}'):
            files.read(files.locate(str(tmp_path)), tiny.models('sd1'))


def test_a_constrained_rotation_is_refused(tmp_path):
    config = peft.OFTConfig(oft_block_size=4, r=0, target_modules=TARGETS, coft=True)
    peft.get_peft_model(copy.deepcopy(tiny.torch_models('sd1')['unet']), config).save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'adapter_config.json').read_text())['coft']
    with pytest.raises(ValueError, match='a constrained OFT of PEFT'):
        files.read(files.locate(str(tmp_path)), tiny.models('sd1'))
