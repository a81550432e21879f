"""What the named configs share: networks, schedules and tokenizers that more than one of them is made of.

Each function returns a fresh spec; keyword arguments replace or add fields, so that a config says only what
is its own.
"""

from typing import Any

from ml_collections import config_dict

Spec = dict[str, Any]

# How latent consistency models are sampled: in a few steps of their own.
LCM = dict(
    sampler=dict(
        _class_name='LCMScheduler',
        beta_schedule='scaled_linear',
        num_train_timesteps=1000,
        steps_offset=1,
        timestep_spacing='leading',
    ),
    num_steps=4,
)


def sd1_unet(context_width: int = 768, **fields: Any) -> Spec:
    """Stable Diffusion 1: 8 heads everywhere; CLIP ViT-L/14, 768 wide, is the context."""
    return (
        dict(
            name='unet',
            channels=320,
            channel_mult=(1, 2, 4, 4),
            depth=(1, 1, 1, 0),
            num_heads=8,
            context_width=context_width,
        )
        | fields
    )


def sd1(**unet: Any) -> Spec:
    """The models of Stable Diffusion 1; unet: fields of the U-Net that are its own."""
    return dict(
        models=dict(unet=sd1_unet(**unet), first_stage=kl_f8(), text_encoder=clip_l_text()),
        tokenizer=clip_tokenizer(pad_id=49407),
        **_stable_diffusion('eps', 512),
    )


def sd2_unet(**fields: Any) -> Spec:
    """Stable Diffusion 2: heads of width 64, OpenCLIP ViT-H/14 as context."""
    return dict(
        name='unet',
        channels=320,
        channel_mult=(1, 2, 4, 4),
        depth=(1, 1, 1, 0),
        head_width=64,
        context_width=1024,
        **fields,
    )


def sd2(parameterization: str = 'eps', image_size: int = 512, **unet: Any) -> Spec:
    """The models of Stable Diffusion 2; unet: fields of the U-Net that are its own."""
    return dict(
        models=dict(unet=sd2_unet(**unet), first_stage=kl_f8(), text_encoder=open_clip_h_text()),
        tokenizer=clip_tokenizer(pad_id=0),
        **_stable_diffusion(parameterization, image_size),
    )


def sdxl(**unet: Any) -> Spec:
    """The models of SDXL; unet: fields of the U-Net that are its own."""
    return dict(
        models=dict(
            unet=sdxl_unet(**unet),
            first_stage=kl_f8(),
            text_encoder=clip_l_text(output_layer=-2, final_norm=False),
            text_encoder_2=open_clip_bigg_text(),
        ),
        tokenizer=clip_tokenizer(pad_id=49407),
        tokenizer_2=clip_tokenizer(pad_id=0),
        **_stable_diffusion('eps', 1024, scaling_factor=0.13025),
    )


def _stable_diffusion(parameterization: str, image_size: int, scaling_factor: float = 0.18215) -> Spec:
    return dict(
        schedule=scaled_linear(0.00085, 0.012),
        parameterization=parameterization,
        loss='l2',
        scaling_factor=scaling_factor,
        latent_size=image_size // 8,
        image_size=image_size,
    )


def sdxl_unet(**fields: Any) -> Spec:
    """SDXL base: no attention at full latent resolution, ten transformer blocks at the lowest."""
    return (
        dict(
            name='unet',
            channels=320,
            channel_mult=(1, 2, 4),
            depth=(0, 2, 10),
            mid_depth=10,
            head_width=64,
            context_width=2048,
            vector_width=2816,  # pooled text 1280, and 6 x 256 for original size, crop and target size
        )
        | fields
    )


def unconditional_vq_f4() -> Spec:
    """The models of CelebA-HQ, FFHQ and LSUN bedrooms: plain self-attention from half resolution down."""
    return dict(
        models=dict(
            unet=dict(
                name='unet',
                in_channels=3,
                out_channels=3,
                channels=224,
                channel_mult=(1, 2, 3, 4),
                depth=(0, 1, 1, 1),
                head_width=32,
            ),
            first_stage=vq_f4(),
        ),
        schedule=scaled_linear(0.0015, 0.0195),
        parameterization='eps',
        loss='l2',
        scaling_factor=1.0,
        latent_size=64,
        image_size=256,
    )


def semantic_synthesis(image_size: int) -> Spec:
    """Landscapes from 182 classes; the classes' map is rescaled and put behind the latents.

    The published settings ask for attention at downsamplings 8, 16 and 32, which three levels never
    reach: it is in the middle block only.
    """
    return dict(
        models=dict(
            unet=dict(
                name='unet',
                in_channels=6,
                out_channels=3,
                channels=128,
                channel_mult=(1, 4, 8),
                depth=(0, 0, 0),
                num_heads=8,
            ),
            first_stage=vq_f4(),
            rescaler=dict(name='spatial_rescaler', num_stages=2, in_channels=182, out_channels=3),
        ),
        schedule=scaled_linear(0.0015, 0.0205),
        parameterization='eps',
        loss='l1',
        scaling_factor=1.0,
        latent_size=image_size // 4,
        image_size=image_size,
    )


def kl_f4(z_channels: int = 3) -> Spec:
    return dict(name='vae', z_channels=z_channels, channel_mult=(1, 2, 4))


def kl_f8() -> Spec:
    """Also the first stage of Stable Diffusion 1 and 2 and of SDXL, with weights of their own."""
    return dict(name='vae', z_channels=4, channel_mult=(1, 2, 4, 4))


def kl_f16() -> Spec:
    return dict(name='vae', z_channels=16, channel_mult=(1, 1, 2, 2, 4), attention_levels=(4,))


def kl_f32() -> Spec:
    return dict(name='vae', z_channels=64, channel_mult=(1, 1, 2, 2, 4, 4), attention_levels=(4, 5))


def vq_f4(mid_attention: bool = True) -> Spec:
    return dict(name='vq', num_codes=8192, z_channels=3, channel_mult=(1, 2, 4), mid_attention=mid_attention)


def vq_f8(num_codes: int = 16384) -> Spec:
    return dict(
        name='vq', num_codes=num_codes, z_channels=4, channel_mult=(1, 2, 2, 4), attention_levels=(3,)
    )


def vq_f16() -> Spec:
    return dict(name='vq', num_codes=16384, z_channels=8, channel_mult=(1, 1, 2, 2, 4), attention_levels=(4,))


def clip_l_text(**fields: Any) -> Spec:
    """OpenAI's CLIP ViT-L/14."""
    return dict(name='clip_text', width=768, num_layers=12, num_heads=12, activation='quick_gelu', **fields)


def open_clip_h_text() -> Spec:
    """OpenCLIP ViT-H/14 as Stable Diffusion 2 uses it: 23 of 24 layers, then the final norm."""
    return dict(name='clip_text', width=1024, num_layers=23, num_heads=16, activation='gelu')


def open_clip_bigg_text() -> Spec:
    """OpenCLIP ViT-bigG/14 as SDXL uses it: the last layer but one without norm, and the projected vector."""
    return dict(
        name='clip_text',
        width=1280,
        num_layers=32,
        num_heads=20,
        activation='gelu',
        projection_width=1280,
        output_layer=-2,
        final_norm=False,
    )


def clip_l_vision() -> Spec:
    """OpenAI's CLIP ViT-L/14."""
    return dict(
        name='clip_vision',
        width=1024,
        num_layers=24,
        num_heads=16,
        activation='quick_gelu',
        projection_width=768,
    )


def open_clip_h_vision() -> Spec:
    """OpenCLIP ViT-H/14."""
    return dict(
        name='clip_vision',
        width=1280,
        num_layers=32,
        num_heads=16,
        activation='gelu',
        projection_width=1024,
    )


def clip_tokenizer(pad_id: int) -> Spec:
    """pad_id: 49407, the end token, in OpenAI's family; 0 in OpenCLIP's."""
    return dict(name='clip', context_length=77, pad_id=pad_id)


def bert_tokenizer() -> Spec:
    """bert-base-uncased's 30522 word pieces; the padding is never masked."""
    return dict(name='bert', context_length=77)


def scaled_linear(beta_start: float, beta_end: float) -> Spec:
    """The noise of 1000 training steps, linear in the square root of beta."""
    return dict(name='scaled_linear', beta_start=beta_start, beta_end=beta_end, num_train_steps=1000)


def emoji(**select: Any) -> Spec:
    """The emoji pack's training images at 32 x 32, captioned 'red apple, noto style'; select narrows them.

    --config.data.path says where the pack is: a zip file or folder with a metadata.jsonl, whose rows have
    file_name, caption, style, group and split.
    """
    return dict(
        name='image_folder',
        path='data/emoji64.zip',
        image_size=32,
        text=('{caption}, {style} style',),
        select=dict(split=('train',)) | select,
    )


def emoji64(**fields: Any) -> Spec:
    """The training images of emoji64 (tools/build_emoji64.py), captioned 'red apple, noto style'.

    --config.data.data_dir says where it was built.
    """
    return (
        dict(
            name='tfds',
            dataset='emoji64',
            data_dir='data',
            split='train',
            image_size=64,
            text=('{caption}, {style} style',),
        )
        | fields
    )


def small_vae() -> Spec:
    """A KL autoencoder of 64 x 64 images, f = 8 with 16 channels: 1,676,291 parameters."""
    return dict(
        name='vae',
        z_channels=16,
        channels=16,
        channel_mult=(1, 2, 4, 6),
        num_res_blocks=1,
        num_groups=8,
        mid_attention=False,
    )


def small_vae_adam() -> Spec:
    # The loss is a sum of 64 x 64 x 3 numbers.
    return dict(lr=1e-3, warmup_steps=200, curve=dict(name='cosine', final_lr=1e-5), clip_norm=12288.0)


def small_unet() -> Spec:
    """The U-Net on the latents of small_vae, with small_clip_text as context: 8,869,168 parameters.

    Attention at 4 x 4 alone: with it at 8 x 8 too, a step takes half as long again on a CPU.
    """
    return dict(
        name='unet',
        in_channels=16,
        out_channels=16,
        channels=96,
        channel_mult=(1, 2),
        num_res_blocks=1,
        depth=(0, 1),
        head_width=24,
        num_groups=24,
        context_width=128,
    )


def small_clip_text() -> Spec:
    """CLIP's text encoder, narrow, for captions of 24 tokens: 6,938,752 parameters, most of them the words'."""
    return dict(
        name='clip_text', context_length=24, width=128, num_layers=3, num_heads=4, projection_width=128
    )


def run(num_steps: int, batch_size: int, **fields: Any) -> Spec:
    """What training/loop.py's Run takes, with every field there, so that each can be set from the command line."""
    return (
        dict(
            num_steps=num_steps,
            batch_size=batch_size,
            accumulate=1,
            seed=0,
            ema=dict(main=dict(name='constant', decay=0.999)),
            log_every=50,
            save_every=1000,
            image_every=config_dict.placeholder(int),  # as save_every
            keep=2,
            keep_every=config_dict.placeholder(int),  # none stay for good
            nonfinite='skip',
            profile=(),
            writers=(),
            parallel=dict(kind='single', data=-1, fsdp=1, tensor=1),
            loader=dict(threads=4, workers=0, prefetch=4, max_corrupt=0.1),
        )
        | fields
    )


def first_stage_adam(**fields: Any) -> Spec:
    """The optimizer of the published first stages, for both players: 4.5e-6 an example, constant, not clipped."""
    return dict(lr=4.5e-6, lr_batch_size=1, curve='constant', b1=0.5, b2=0.9, clip_norm=None) | fields


def pod_run(num_steps: int, batch_size: int, **fields: Any) -> Spec:
    """A run on a slice of 16 chips or more: its state is cut over 16, with copies on larger slices."""
    parallel = dict(kind='mesh', data=-1, fsdp=16, tensor=1)
    return run(
        num_steps,
        batch_size,
        **dict(ema=dict(main=dict(name='constant', decay=0.9999)), save_every=2000, parallel=parallel)
        | fields,
    )
