"""Folders that diffusers saved, and its networks beside ours: the tiny models in the words of diffusers alone."""

import json

import jax
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.checkpoints import apply_layout
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from ldm_jax.checkpoints.layouts import diffusers_folder, rules
from tests import oracles
from tests.checkpoints import folders

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')
transformers = pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.numpy')

UNUSED = {'bert/to_logits.weight', 'bert/to_logits.bias'}
U, V = 'UNet2DConditionModel', 'AutoencoderKL'
BLOCKS = dict(block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8)
SD_UNET = dict(
    BLOCKS,
    _class_name=U,
    cross_attention_dim=16,
    attention_head_dim=2,
    down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
    up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'),
    sample_size=8,
)
XL_UNET = dict(
    SD_UNET,
    attention_head_dim=(2, 4),
    down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
    up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
    transformer_layers_per_block=(1, 2),
    use_linear_projection=True,
    addition_embed_type='text_time',
    addition_time_embed_dim=4,
)
PLAIN_UNET = dict(
    BLOCKS,
    _class_name='UNet2DModel',
    attention_head_dim=16,
    down_block_types=('DownBlock2D', 'AttnDownBlock2D'),
    up_block_types=('AttnUpBlock2D', 'UpBlock2D'),
    sample_size=8,
)
KL = dict(
    _class_name=V,
    block_out_channels=(16, 32),
    down_block_types=('DownEncoderBlock2D',) * 2,
    up_block_types=('UpDecoderBlock2D',) * 2,
    norm_num_groups=8,
    sample_size=16,
)
VQ = dict(KL, _class_name='VQModel', num_vq_embeddings=11, scaling_factor=1.0)
CLIP = dict(
    architectures=['CLIPTextModel'],
    hidden_size=16,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    projection_dim=12,
)
OPEN_CLIP = dict(CLIP, hidden_act='gelu')
PROJECTED = dict(OPEN_CLIP, architectures=['CLIPTextModelWithProjection'])
VISION = dict(OPEN_CLIP, architectures=['CLIPVisionModelWithProjection'], image_size=8, patch_size=4)
VISION['num_hidden_layers'] = 1
BERT = dict(
    architectures=['LDMBertModel'],
    vocab_size=30,
    d_model=16,
    encoder_ffn_dim=64,
    encoder_layers=2,
    encoder_attention_heads=2,
    head_dim=4,
)
NETWORKS = {
    'StableDiffusionPipeline': dict(unet=SD_UNET, vae=KL, text_encoder=CLIP),
    'StableDiffusionPipeline (2)': dict(
        unet=dict(SD_UNET, attention_head_dim=(2, 4), use_linear_projection=True),
        vae=KL,
        text_encoder=OPEN_CLIP,
    ),
    'StableDiffusionInpaintPipeline': dict(unet=dict(SD_UNET, in_channels=9), vae=KL, text_encoder=CLIP),
    'StableDiffusionUpscalePipeline': dict(
        unet=dict(
            SD_UNET,
            in_channels=7,
            num_class_embeds=30,
            only_cross_attention=(True, False),
            down_block_types=('CrossAttnDownBlock2D',) * 2,
            up_block_types=('CrossAttnUpBlock2D',) * 2,
            use_linear_projection=True,
        ),
        vae=KL,
        text_encoder=OPEN_CLIP,
    ),
    'StableUnCLIPImg2ImgPipeline': dict(
        unet=dict(
            SD_UNET,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            class_embed_type='projection',
            projection_class_embeddings_input_dim=24,
        ),
        vae=KL,
        text_encoder=OPEN_CLIP,
        image_encoder=VISION,
        image_normalizer=dict(_class_name='StableUnCLIPImageNormalizer', embedding_dim=12),
    ),
    'StableDiffusionXLPipeline': dict(
        unet=dict(XL_UNET, cross_attention_dim=36, projection_class_embeddings_input_dim=36),
        vae=KL,
        text_encoder=CLIP,
        text_encoder_2=dict(PROJECTED, hidden_size=20, intermediate_size=80),
    ),
    'StableDiffusionXLImg2ImgPipeline': dict(
        unet=dict(XL_UNET, projection_class_embeddings_input_dim=32), vae=KL, text_encoder_2=PROJECTED
    ),
    'LDMTextToImagePipeline': dict(unet=SD_UNET, vqvae=KL, bert=BERT),
    'LDMPipeline': dict(unet=PLAIN_UNET, vqvae=VQ),
    'LDMSuperResolutionPipeline': dict(unet=dict(PLAIN_UNET, in_channels=6), vqvae=VQ),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A folder is all that there is."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)


def pipeline(name):
    """A pipeline of diffusers with random networks; without tokenizers."""
    kind = name.partition(' ')[0]
    parts = {part: folders.module(config) for part, config in NETWORKS[name].items()}
    betas = dict(beta_schedule='scaled_linear', beta_start=0.0009, beta_end=0.0125)
    v = folders.TINY[name]['parameterization'] == 'v'
    parts['scheduler'] = diffusers.DDIMScheduler(
        **betas, prediction_type='v_prediction' if v else 'epsilon', clip_sample=False
    )
    for part in ('low_res_scheduler', 'image_noising_scheduler'):
        parts[part] = diffusers.DDPMScheduler()
    cls = getattr(diffusers, kind)
    wanted = cls._get_signature_keys(cls)[0]
    pipe = cls(**{part: parts.get(part) for part in wanted})
    for component in parts.values():
        if isinstance(component, torch.nn.Module):
            for parameter in component.parameters():
                torch.nn.init.normal_(parameter)
    return pipe


def saved(folder):
    """'<subfolder>/<key>' -> array of the weights of a folder."""
    found = {}
    for path in folder.rglob('*.safetensors'):
        name = path.parent.relative_to(folder).as_posix()
        prefix = '' if name == '.' else f'{name}/'
        found |= {prefix + key: array for key, array in safetensors.load_file(path).items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_a_folder_that_diffusers_saved_is_read_whole(name, tmp_path):
    pipeline(name).save_pretrained(tmp_path)
    tensors = saved(tmp_path)
    settings = diffusers_settings.read_settings(tmp_path)
    expected = folders.TINY[name]
    assert build.parts(settings) == build.parts(expected)
    for key in ('schedule', 'parameterization', 'latent_size', 'image_size'):
        assert settings[key] == expected[key], key
    layout = diffusers_folder.layout(settings, tensors.keys())
    params = apply_layout.import_params(layout, tensors, rules.unflatten(folders.shapes(settings)))
    exported = apply_layout.export_params(layout, params)
    left = {key: layout.ignored(key) for key in tensors.keys() - exported.keys()}
    assert all(left.values())
    assert left.keys() == (UNUSED if 'bert' in NETWORKS[name] else set())
    for key, tensor in exported.items():
        # Heads of width 64 tell Stability's matrices around transformers from CompVis' convolutions; tiny ones do not.
        alike = tensor.reshape(tensors[key].shape) if '.proj_' in key else tensor
        np.testing.assert_array_equal(alike, tensors[key], err_msg=key)


RESNETS = dict(
    PLAIN_UNET,
    down_block_types=('ResnetDownsampleBlock2D', 'AttnDownBlock2D'),
    up_block_types=('AttnUpBlock2D', 'ResnetUpsampleBlock2D'),
    downsample_type='resnet',
    upsample_type='resnet',
    resnet_time_scale_shift='scale_shift',
    attn_norm_num_groups=8,
    attention_head_dim=None,
)
ALIKE = ('Inpaint', 'XLImg2Img', 'LDMText', 'LDMSuper')
UNETS = {
    name: networks['unet'] for name, networks in NETWORKS.items() if not any(part in name for part in ALIKE)
}
UNETS['resnets'] = RESNETS


@pytest.mark.slow
@pytest.mark.parametrize('name', UNETS)
def test_the_unet_computes_what_that_of_diffusers_does(name):
    net = folders.module(UNETS[name]).eval()
    oracles.randomize(net)
    settings = dict(models=dict(unet=diffusers_settings.network(json.loads(net.to_json_string()))[1]))
    model, state = build.parts(settings)['unet'], oracles.tensors(net)
    params = apply_layout.import_params(
        diffusers_folder.layout(settings, state.keys()), state, rules.unflatten(folders.shapes(settings))
    )
    x, t, cond = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).standard_normal(leaf.shape, np.float32),
        model.inputs(batch=2, size=8),
    )
    label = None if model.num_classes is None else np.array([3, 19])
    cond, t = cond.replace(label=label), np.array([7.0, 801.0], np.float32)

    more = {}
    if model.context_width is not None:
        more['encoder_hidden_states'] = torch.tensor(cond.context)
    if net.config.class_embed_type == 'projection':
        more['class_labels'] = torch.tensor(cond.vector)
    elif model.vector_width is not None:
        # The vector is what diffusers makes of a text and of five or six sizes.
        text, sizes = (
            torch.tensor(cond.vector[:, :12]),
            torch.arange(1.0, 2 * (model.vector_width - 12) // 4 + 1),
        )
        more['added_cond_kwargs'] = dict(text_embeds=text, time_ids=sizes.reshape(2, -1))
        waves = net.add_time_proj(sizes).reshape(2, -1).numpy()
        cond = cond.replace(vector=np.concatenate([text.numpy(), waves], axis=1))
    if label is not None:
        more['class_labels'] = torch.tensor(label)
    images = x if cond.concat is None else np.concatenate([x, cond.concat], axis=-1)
    with torch.no_grad():
        expected = net(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(t), **more).sample
    run = jax.jit(model.apply)
    output = run({'params': params['unet']}, x, t, cond)
    assert oracles.relative_error(output, expected.numpy().transpose(0, 2, 3, 1)) < 1e-5
