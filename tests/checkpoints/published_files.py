"""JSON files as folders of their time have them, with the keys that the versions back then wrote."""

import json

SD15_UNET = dict(
    _class_name='UNet2DConditionModel',
    _diffusers_version='0.6.0',
    act_fn='silu',
    attention_head_dim=8,
    block_out_channels=[320, 640, 1280, 1280],
    center_input_sample=False,
    cross_attention_dim=768,
    down_block_types=['CrossAttnDownBlock2D'] * 3 + ['DownBlock2D'],
    downsample_padding=1,
    flip_sin_to_cos=True,
    freq_shift=0,
    in_channels=4,
    layers_per_block=2,
    mid_block_scale_factor=1,
    norm_eps=1e-05,
    norm_num_groups=32,
    out_channels=4,
    sample_size=64,
    up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 3,
)
SD2_UNET = dict(
    SD15_UNET,
    attention_head_dim=[5, 10, 20, 20],
    cross_attention_dim=1024,
    dual_cross_attention=False,
    only_cross_attention=False,
    use_linear_projection=True,
    upcast_attention=True,
    num_class_embeds=None,
    sample_size=96,
)
X4_UNET = dict(
    SD2_UNET,
    attention_head_dim=8,
    block_out_channels=[256, 512, 512, 1024],
    down_block_types=['DownBlock2D'] + ['CrossAttnDownBlock2D'] * 3,
    up_block_types=['CrossAttnUpBlock2D'] * 3 + ['UpBlock2D'],
    in_channels=7,
    num_class_embeds=1000,
    only_cross_attention=[True, True, True, False],
    sample_size=128,
)
UNCLIP_UNET = dict(
    SD2_UNET,
    class_embed_type='projection',
    projection_class_embeddings_input_dim=2048,
    time_embedding_type='positional',
    resnet_time_scale_shift='default',
)
SDXL_UNET = dict(
    SD15_UNET,
    addition_embed_type='text_time',
    addition_embed_type_num_heads=64,
    addition_time_embed_dim=256,
    attention_head_dim=[5, 10, 20],
    block_out_channels=[320, 640, 1280],
    class_embeddings_concat=False,
    conv_in_kernel=3,
    cross_attention_dim=2048,
    down_block_types=['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types=['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    mid_block_only_cross_attention=None,
    projection_class_embeddings_input_dim=2816,
    resnet_out_scale_factor=1.0,
    sample_size=128,
    transformer_layers_per_block=[1, 2, 10],
    upcast_attention=None,
    use_linear_projection=True,
)
REFINER_UNET = dict(
    SDXL_UNET,
    attention_head_dim=[6, 12, 24, 24],
    block_out_channels=[384, 768, 1536, 1536],
    cross_attention_dim=1280,
    down_block_types=['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types=['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    projection_class_embeddings_input_dim=2560,
    transformer_layers_per_block=4,
)
KL_F8 = dict(
    _class_name='AutoencoderKL',
    _diffusers_version='0.6.0',
    act_fn='silu',
    block_out_channels=[128, 256, 512, 512],
    down_block_types=['DownEncoderBlock2D'] * 4,
    in_channels=3,
    latent_channels=4,
    layers_per_block=2,
    out_channels=3,
    sample_size=512,
    up_block_types=['UpDecoderBlock2D'] * 4,
)
CELEBA_UNET = dict(
    _class_name='UNet2DModel',
    _diffusers_version='0.1.2',
    act_fn='silu',
    attention_head_dim=32,
    block_out_channels=[224, 448, 672, 896],
    center_input_sample=False,
    down_block_types=['DownBlock2D'] + ['AttnDownBlock2D'] * 3,
    downsample_padding=1,
    flip_sin_to_cos=True,
    freq_shift=0,
    in_channels=3,
    layers_per_block=2,
    mid_block_scale_factor=1,
    norm_eps=1e-05,
    norm_num_groups=32,
    out_channels=3,
    sample_size=64,
    time_embedding_type='positional',
    up_block_types=['AttnUpBlock2D'] * 3 + ['UpBlock2D'],
)
VQ_F4 = dict(
    _class_name='VQModel',
    _diffusers_version='0.1.2',
    act_fn='silu',
    block_out_channels=[128, 256, 512],
    down_block_types=['DownEncoderBlock2D'] * 3,
    in_channels=3,
    latent_channels=3,
    layers_per_block=2,
    num_vq_embeddings=8192,
    out_channels=3,
    sample_size=256,
    up_block_types=['UpDecoderBlock2D'] * 3,
)
CLIP_L = dict(
    architectures=['CLIPTextModel'],
    attention_dropout=0.0,
    bos_token_id=0,
    dropout=0.0,
    eos_token_id=2,
    hidden_act='quick_gelu',
    hidden_size=768,
    initializer_factor=1.0,
    initializer_range=0.02,
    intermediate_size=3072,
    layer_norm_eps=1e-05,
    max_position_embeddings=77,
    model_type='clip_text_model',
    num_attention_heads=12,
    num_hidden_layers=12,
    pad_token_id=1,
    projection_dim=768,
    torch_dtype='float32',
    transformers_version='4.22.0.dev0',
    vocab_size=49408,
)
OPEN_CLIP_H = CLIP_L | dict(
    hidden_act='gelu',
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    num_hidden_layers=23,
    projection_dim=512,
)
BIG_G = CLIP_L | dict(
    architectures=['CLIPTextModelWithProjection'],
    hidden_act='gelu',
    hidden_size=1280,
    intermediate_size=5120,
    num_attention_heads=20,
    num_hidden_layers=32,
    projection_dim=1280,
)
SCHEDULER = dict(
    _class_name='PNDMScheduler',
    _diffusers_version='0.6.0',
    beta_end=0.012,
    beta_schedule='scaled_linear',
    beta_start=0.00085,
    num_train_timesteps=1000,
    set_alpha_to_one=False,
    skip_prk_steps=True,
    steps_offset=1,
    trained_betas=None,
    clip_sample=False,
)
V_SCHEDULER = dict(SCHEDULER, _class_name='DDIMScheduler', prediction_type='v_prediction')
END_PAD = {'tokenizer_config.json': dict(pad_token='<|endoftext|>'), 'special_tokens_map.json': {}}
# Stable Diffusion 2 says one thing in each file, and the map is what counts.
ZERO_PAD = {
    'tokenizer_config.json': dict(pad_token='<|endoftext|>'),
    'special_tokens_map.json': dict(pad_token='!'),
}


def pipeline(kind, scheduler=SCHEDULER, padding=END_PAD, **networks):
    """The files of a folder."""
    nets = {
        name: ['diffusers' if '_class_name' in c else 'transformers', '?'] for name, c in networks.items()
    }
    empty = {name: [None, None] for name in ('text_encoder', 'safety_checker', 'feature_extractor')}
    files = {'model_index.json': empty | nets | dict(_class_name=kind, scheduler=['diffusers', '?'])}
    files |= {f'{name}/config.json': config for name, config in networks.items()}
    files['scheduler/scheduler_config.json'] = scheduler
    for name in networks:
        if name.startswith('text_encoder'):
            pads = ZERO_PAD if name == 'text_encoder_2' else padding
            files |= {
                f'{name.replace("text_encoder", "tokenizer")}/{file}': text for file, text in pads.items()
            }
    return files


SDXL_VAE = dict(KL_F8, scaling_factor=0.13025, force_upcast=True, sample_size=1024)
OF_THEIR_TIME = {
    'sd15': pipeline('StableDiffusionPipeline', unet=SD15_UNET, vae=KL_F8, text_encoder=CLIP_L),
    'sd2_v': pipeline(
        'StableDiffusionPipeline', V_SCHEDULER, ZERO_PAD, unet=SD2_UNET, vae=KL_F8, text_encoder=OPEN_CLIP_H
    ),
    'x4_upscaler': pipeline(
        'StableDiffusionUpscalePipeline',
        dict(V_SCHEDULER, beta_start=0.0001, beta_end=0.02),
        ZERO_PAD,
        unet=X4_UNET,
        vae=dict(
            KL_F8,
            block_out_channels=[128, 256, 512],
            down_block_types=['DownEncoderBlock2D'] * 3,
            up_block_types=['UpDecoderBlock2D'] * 3,
        ),
        text_encoder=OPEN_CLIP_H,
    ),
    'sdxl': pipeline(
        'StableDiffusionXLPipeline',
        dict(SCHEDULER, _class_name='EulerDiscreteScheduler', prediction_type='epsilon'),
        unet=SDXL_UNET,
        vae=SDXL_VAE,
        text_encoder=CLIP_L,
        text_encoder_2=BIG_G,
    ),
    'sdxl_refiner': pipeline(
        'StableDiffusionXLImg2ImgPipeline', unet=REFINER_UNET, vae=SDXL_VAE, text_encoder_2=BIG_G
    ),
    'sd21_unclip_h': pipeline(
        'StableUnCLIPImg2ImgPipeline',
        V_SCHEDULER,
        ZERO_PAD,
        unet=UNCLIP_UNET,
        vae=KL_F8,
        text_encoder=OPEN_CLIP_H,
        image_encoder=dict(
            architectures=['CLIPVisionModelWithProjection'],
            hidden_act='gelu',
            hidden_size=1280,
            image_size=224,
            intermediate_size=5120,
            num_attention_heads=16,
            num_channels=3,
            num_hidden_layers=32,
            patch_size=14,
            projection_dim=1024,
        ),
        image_normalizer=dict(_class_name='StableUnCLIPImageNormalizer', embedding_dim=1024),
    ),
    'ldm_celeba256': pipeline(
        'LDMPipeline',
        dict(SCHEDULER, beta_start=0.0015, beta_end=0.0195),
        unet=CELEBA_UNET,
        vqvae=VQ_F4,
    ),
}


def write(folder, files):
    """JSON files by name."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), 'utf-8')
