"""Which pipeline of diffusers a model is, what its folders are called, and what model_index.json says.

text  vector  conv_in                          pipeline
CLIP  -       latents                          StableDiffusionPipeline
CLIP  -       latents, mask, latents           StableDiffusionInpaintPipeline
CLIP  -       latents, latents                 StableDiffusionInstructPix2PixPipeline
CLIP  -       latents, depth                   StableDiffusionDepth2ImgPipeline
CLIP  label   latents, image                   StableDiffusionUpscalePipeline
CLIP  image   latents                          StableUnCLIPImg2ImgPipeline
two   sizes   latents (mask, latents)          StableDiffusionXLPipeline (StableDiffusionXLInpaintPipeline)
one   sizes   latents                          StableDiffusionXLImg2ImgPipeline, the refiner
BERT  -       latents                          LDMTextToImagePipeline
-     -       latents (, image)                LDMPipeline (LDMSuperResolutionPipeline)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.checkpoints.default_tokenizers import TOKENIZED
from ldm_jax.checkpoints.diffusers.fields import header, unsupported
from ldm_jax.models import bert, clip_text, unet, vq

REFINER, UNCLIP = 'StableDiffusionXLImg2ImgPipeline', 'StableUnCLIPImg2ImgPipeline'
DEPTH, UPSCALE = 'StableDiffusionDepth2ImgPipeline', 'StableDiffusionUpscalePipeline'
SUPER_RESOLUTION, UNCONDITIONAL = 'LDMSuperResolutionPipeline', 'LDMPipeline'
LDM_TEXT = 'LDMTextToImagePipeline'
WITH_IMAGE_ENCODER = (UNCLIP, 'StableDiffusionPipeline', 'StableDiffusionXLPipeline')
UPSCALE_FACTOR = 0.08333  # which the upscaler's pipeline puts in the place of any other

NORMALIZER = 'image_normalizer'
# What each subfolder's network is to us; SDXL's refiner has text_encoder_2 alone, which is our text_encoder.
PARTS = {
    'unet': 'unet',
    'vae': 'first_stage',
    'vqvae': 'first_stage',
    'text_encoder': 'text_encoder',
    'bert': 'text_encoder',
    'text_encoder_2': 'text_encoder_2',
    'image_encoder': 'image_encoder',
    NORMALIZER: NORMALIZER,
}
# Components of a folder that are no part of ours, and why they are left.
LEFT = {
    'scheduler': 'settings, no weights',
    'tokenizer': 'settings, no weights',
    'tokenizer_2': 'settings, no weights',
    'feature_extractor': 'settings, no weights',
    'low_res_scheduler': 'settings, no weights',
    'image_noising_scheduler': 'settings, no weights',
    'safety_checker': 'a classifier of what to hide, which takes no part in making images',
    'depth_estimator': 'MiDaS, which makes the depth map that the model is given',
    'watermarker': 'marks images after they are made',
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of folder. pipeline: the class, or None for a folder of one model, whose subfolder is ''."""

    pipeline: str | None
    subfolders: Mapping[str, str]  # part -> subfolder
    xl: bool = False  # SDXL's way to read text

    @property
    def tokenizers(self) -> dict[str, str]:
        """Our tokenizer's name -> its subfolder."""
        return {
            ours: tokenizer_folder(self.subfolders[part])
            for ours, part in TOKENIZED.items()
            if part in self.subfolders
        }


def tokenizer_folder(subfolder: str) -> str:
    """Where the tokenizer is of the text encoder in a subfolder."""
    return subfolder.replace('text_encoder', 'tokenizer').replace('bert', 'tokenizer')


def kind_of(settings: Mapping[str, Any]) -> Kind:
    """The kind of folder that holds a model.

    Raises:
        ValueError: diffusers has no pipeline for it; the message names the obstacle.
    """
    models, specs = build.parts(settings), settings['models']
    if len(specs) == 1:
        return Kind(None, dict.fromkeys(specs, ''))
    for part in specs:
        if part not in PARTS.values():
            raise unsupported(f'models.{part}', specs[part], 'no pipeline of diffusers has such a part')
    for part in ('unet', 'first_stage'):
        if part not in models:
            raise unsupported(
                'models', sorted(specs), f'a pipeline needs a {part}; write one part alone instead'
            )
    text = models.get('text_encoder')
    if text is None:
        return _unconditional(models)
    if isinstance(text, bert.Model):
        return _ldm_text(models)
    names = _clip(models)
    subfolders = dict(unet='unet', first_stage='vae', text_encoder='text_encoder')
    if names == REFINER:
        subfolders['text_encoder'] = 'text_encoder_2'
    for part in ('text_encoder_2', 'image_encoder', NORMALIZER):
        if part in specs:
            subfolders[part] = part
    return Kind(names, subfolders, xl='XL' in names)


def index(
    settings: Mapping[str, Any], kind: Kind, configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """model_index.json of a pipeline.

    Args:
        settings: of the model.
        kind: its kind.
        configs: subfolder -> the config.json or scheduler_config.json that is written there.
    """
    found: dict[str, Any] = header(kind.pipeline)
    for folder, config in configs.items():
        name = config.get('_class_name') or config['architectures'][0]
        library = 'diffusers' if '_class_name' in config else 'transformers'
        if name == 'LDMBertModel':
            library = 'latent_diffusion'
        if folder == NORMALIZER:
            library = 'stable_diffusion'
        if folder == 'text_encoder':
            # A projection that comes with it is left unused: the pipelines expect this class.
            name = 'CLIPTextModel'
        found[folder] = [library, name]
    for ours, folder in kind.tokenizers.items():
        name = 'BertTokenizer' if settings[ours]['name'] == 'bert' else 'CLIPTokenizer'
        found[folder] = ['transformers', name]
    nothing = [None, None]
    if kind.pipeline == DEPTH:
        return found | dict(depth_estimator=nothing, feature_extractor=nothing)
    if kind.pipeline in (SUPER_RESOLUTION, UNCONDITIONAL, LDM_TEXT):
        return found
    if 'image_encoder' in kind.subfolders:
        found['feature_extractor'] = ['transformers', 'CLIPImageProcessor']
    if kind.pipeline == UNCLIP:
        return found
    if kind.pipeline == REFINER:
        found |= dict(text_encoder=nothing, tokenizer=nothing)
    if kind.xl:
        refines = kind.pipeline == REFINER
        found['force_zeros_for_empty_prompt'] = not refines
        if kind.pipeline != 'StableDiffusionXLPipeline':
            found['requires_aesthetics_score'] = refines
    elif kind.pipeline == UPSCALE:
        return found | dict(
            safety_checker=nothing, feature_extractor=nothing, watermarker=nothing, max_noise_level=350
        )
    else:
        found |= dict(safety_checker=nothing, requires_safety_checker=False)
    optional = dict(image_encoder=nothing, feature_extractor=nothing)
    return optional | found


def _unconditional(models: Mapping[str, Any]) -> Kind:
    network, first_stage = models['unet'], models['first_stage']
    extra = [part for part in models if part not in ('unet', 'first_stage')]
    if extra:
        raise unsupported('models', sorted(models), f'no pipeline without text has {extra}')
    if network.context_width is not None:
        raise unsupported('unet.context_width', network.context_width, 'there is no text_encoder for it')
    if network.num_classes is not None:
        raise unsupported('unet.num_classes', network.num_classes, 'no pipeline without text takes a label')
    subfolders = dict(unet='unet', first_stage='vqvae')
    more = network.in_channels - network.out_channels
    if more == 0:
        return Kind(UNCONDITIONAL, subfolders)
    if more == first_stage.image_channels and isinstance(first_stage, vq.Model):
        return Kind(SUPER_RESOLUTION, subfolders)
    raise _no_channels(network, 'LDMPipeline takes none, LDMSuperResolutionPipeline those of a small image')


def _ldm_text(models: Mapping[str, Any]) -> Kind:
    network = models['unet']
    if sorted(models) != ['first_stage', 'text_encoder', 'unet']:
        raise unsupported(
            'models', sorted(models), f'{LDM_TEXT} has a unet, a first_stage and a text_encoder'
        )
    for field in ('vector_width', 'num_classes'):
        if getattr(network, field) is not None:
            raise unsupported(f'unet.{field}', getattr(network, field), f'{LDM_TEXT} gives it none')
    if network.in_channels != network.out_channels:
        raise _no_channels(network, f'{LDM_TEXT} takes none')
    return Kind(LDM_TEXT, dict(unet='unet', first_stage='vqvae', text_encoder='bert'))


def _clip(models: Mapping[str, Any]) -> str:
    """The pipeline of a model with CLIP's text encoder."""
    network, latents = models['unet'], models['first_stage'].z_channels
    images, more = models['first_stage'].image_channels, network.in_channels - network.out_channels
    two, sees = 'text_encoder_2' in models, 'image_encoder' in models
    if network.vector_width is not None and network.num_classes is not None:
        raise unsupported('unet.num_classes', network.num_classes, 'no pipeline takes a label and a vector')
    if network.vector_width is None and two:
        raise unsupported('models.text_encoder_2', sorted(models), 'SDXL has a unet.vector_width too')
    if network.vector_width is not None:
        if two:
            kinds = {0: 'StableDiffusionXLPipeline', latents + 1: 'StableDiffusionXLInpaintPipeline'}
            _needs(models, 'text_encoder_2')
        elif sees or NORMALIZER in models:
            kinds = {0: UNCLIP}
            for part in ('image_encoder', NORMALIZER):
                if part not in models:
                    raise unsupported('models', sorted(models), f'{UNCLIP} needs an {part} too')
            _needs(models, 'image_encoder')
        else:
            kinds = {0: REFINER}
            _needs(models, 'text_encoder')
    elif network.num_classes is not None:
        kinds = {images: UPSCALE}
    else:
        kinds = {
            0: 'StableDiffusionPipeline',
            latents + 1: 'StableDiffusionInpaintPipeline',
            latents: 'StableDiffusionInstructPix2PixPipeline',
            1: DEPTH,
        }
    if more not in kinds:
        raise _no_channels(network, f'have {kinds} for the number of channels beside the latents')
    if sees and kinds[more] not in WITH_IMAGE_ENCODER:
        raise unsupported('models.image_encoder', sorted(models), f'{kinds[more]} has none')
    if two and models['text_encoder'].projection_width is not None:
        raise unsupported(
            'text_encoder.projection_width',
            models['text_encoder'].projection_width,
            "of SDXL's encoders the second one alone projects",
        )
    return kinds[more]


def sizes_width(network: unet.Model, text: clip_text.Model, kind: Kind) -> int:
    """Width of the sinusoids of each of the sizes that SDXL is conditioned on: six, or five for the refiner.

    Raises ValueError where the vector does not leave so many.
    """
    count = 5 if kind.pipeline == REFINER else 6
    rest = network.vector_width - text.projection_width
    if rest <= 0 or rest % (2 * count):
        raise unsupported(
            'unet.vector_width',
            network.vector_width,
            f'behind {text.projection_width} of the text it must hold sinusoids of {count} sizes',
        )
    return rest // count


def _needs(models: Mapping[str, Any], part: str) -> None:
    if models[part].projection_width is None:
        raise unsupported(f'{part}.projection_width', None, 'its projection is part of the vector')


def _no_channels(network: unet.Model, expected: str) -> ValueError:
    reason = f'with out_channels={network.out_channels}, no pipeline: {expected}'
    return unsupported('unet.in_channels', network.in_channels, reason)
