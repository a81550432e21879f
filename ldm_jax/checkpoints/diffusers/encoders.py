"""Text and image encoders' config.json: CLIP's towers in transformers, latent diffusion's own in diffusers.

Which layer a context is read from is no part of these files: the pipeline decides it (`xl`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.diffusers.fields import VERSION, Fields, Spec, header, spec, unsupported
from ldm_jax.models import bert, clip_text, clip_vision, image_normalizer
from ldm_jax.text import clip

TEXT_DEFAULTS = dict(
    vocab_size=49408,
    hidden_size=512,
    intermediate_size=2048,
    projection_dim=512,
    num_hidden_layers=12,
    num_attention_heads=8,
    max_position_embeddings=77,
    eos_token_id=49407,
)
VISION_DEFAULTS = dict(
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=512,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=224,
    patch_size=32,
)
BERT_DEFAULTS = dict(
    vocab_size=30522,
    max_position_embeddings=77,
    encoder_layers=32,
    encoder_ffn_dim=5120,
    encoder_attention_heads=8,
    head_dim=64,
    d_model=1280,
)
# What every file of transformers may carry: names, versions, precision, training.
INERT = (
    'architectures',
    'attention_dropout',
    'attention_probs_dropout_prob',
    'bos_token_id',
    'decoder_start_token_id',
    'dropout',
    'dtype',
    'finetuning_task',
    'gradient_checkpointing',
    'hidden_dropout_prob',
    'id2label',
    'initializer_factor',
    'initializer_range',
    'label2id',
    'model_type',
    'pad_token_id',
    'return_dict',
    'sep_token_id',
    'torch_dtype',
    'transformers_version',
    'use_bfloat16',
    'use_cache',
)
# Generation settings, which transformers before version 5 wrote into every file, at their defaults.
GENERATION = (
    'chunk_size_feed_forward',
    'diversity_penalty',
    'early_stopping',
    'encoder_no_repeat_ngram_size',
    'length_penalty',
    'max_length',
    'min_length',
    'no_repeat_ngram_size',
    'num_beam_groups',
    'num_beams',
    'num_return_sequences',
    'pruned_heads',
    'repetition_penalty',
    'temperature',
    'tie_word_embeddings',
    'top_k',
    'top_p',
    'typical_p',
)
PROJECTED_TEXT, PROJECTED_VISION = 'CLIPTextModelWithProjection', 'CLIPVisionModelWithProjection'


def read_text(
    config: Mapping[str, Any], where: str = 'config.json', projected: bool = False, xl: bool = False
) -> Spec:
    """The spec of a CLIPTextModel.

    Args:
        config: the JSON object.
        where: what errors call it.
        projected: it is a CLIPTextModelWithProjection.
        xl: SDXL reads it: the last layer but one, without norm.

    Raises ValueError for a setting that model clip_text does not have, naming it.
    """
    fields = Fields(config, where, TEXT_DEFAULTS)
    vocab_size, end_id = fields('vocab_size'), fields('eos_token_id')
    if end_id != 2 and end_id >= vocab_size:
        raise fields.error('eos_token_id', end_id, f'it must be below vocab_size, {vocab_size}')
    found = spec(
        'clip_text',
        **_tower(fields, projected),
        vocab_size=vocab_size,
        context_length=fields('max_position_embeddings'),
        # Files before transformers 4.31 say 2 and mean the highest id, which is CLIP's end token.
        end_id=vocab_size - 1 if end_id == 2 else end_id,
        output_layer=-2 if xl else -1,
        final_norm=not xl,
    )
    fields.finish((*INERT, *GENERATION))
    return found


def read_vision(config: Mapping[str, Any], where: str = 'config.json', projected: bool = True) -> Spec:
    """The spec of a CLIPVisionModel or, projected, of a CLIPVisionModelWithProjection; raises as `read_text`."""
    fields = Fields(config, where, VISION_DEFAULTS)
    fields.only('num_channels', 3)
    found = spec(
        'clip_vision',
        **_tower(fields, projected),
        image_size=fields('image_size'),
        patch_size=fields('patch_size'),
    )
    fields.finish((*INERT, *GENERATION))
    return found


def read_bert(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of an LDMBertModel; ValueError names a setting that model bert does not have."""
    fields = Fields(config, where, BERT_DEFAULTS)
    width = fields('d_model')
    fields.only('activation_function', 'gelu')
    fields.only('scale_embedding', False)
    if fields('encoder_ffn_dim') != 4 * width:
        raise fields.error('encoder_ffn_dim', fields('encoder_ffn_dim'), f'it must be 4 d_model, {4 * width}')
    for alias, key in (('num_hidden_layers', 'encoder_layers'), ('hidden_size', 'd_model')):
        fields.only(alias, fields(key))
    found = spec(
        'bert',
        vocab_size=fields('vocab_size'),
        context_length=fields('max_position_embeddings'),
        width=width,
        num_layers=fields('encoder_layers'),
        num_heads=fields('encoder_attention_heads'),
        head_width=fields('head_dim'),
    )
    training = ('activation_dropout', 'encoder_layerdrop', 'init_std', 'classifier_dropout')
    fields.finish((*INERT, *GENERATION, *training, 'eos_token_id', 'is_encoder_decoder'))
    return found


def write_text(model: clip_text.Model, xl: bool, pad_id: int = 1) -> dict[str, Any]:
    """The config.json of a CLIP text encoder.

    Raises ValueError for an output_layer and final_norm that are not those of the kind of pipeline.
    """
    for field, value in dict(output_layer=-2 if xl else -1, final_norm=not xl).items():
        if getattr(model, field) != value:
            kind = 'SDXL' if xl else 'Stable Diffusion 1 and 2'
            raise unsupported(
                f'text_encoder.{field}', getattr(model, field), f'pipelines of {kind} always take {value}'
            )
    return dict(
        _write_tower(model, PROJECTED_TEXT if model.projection_width else 'CLIPTextModel'),
        model_type='clip_text_model',
        vocab_size=model.vocab_size,
        max_position_embeddings=model.context_length,
        bos_token_id=clip.START_ID if model.end_id == clip.END_ID else 0,
        eos_token_id=model.end_id,
        pad_token_id=pad_id,
    )


def write_vision(model: clip_vision.Model) -> dict[str, Any]:
    """The config.json of a CLIP image encoder."""
    return dict(
        _write_tower(model, PROJECTED_VISION if model.projection_width else 'CLIPVisionModel'),
        model_type='clip_vision_model',
        image_size=model.image_size,
        num_channels=3,
        patch_size=model.patch_size,
    )


def write_bert(model: bert.Model) -> dict[str, Any]:
    """The config.json of latent diffusion's text encoder."""
    return dict(
        architectures=['LDMBertModel'],
        model_type='ldmbert',
        activation_function='gelu',
        d_model=model.width,
        encoder_attention_heads=model.num_heads,
        encoder_ffn_dim=4 * model.width,
        encoder_layers=model.num_layers,
        head_dim=model.head_width,
        max_position_embeddings=model.context_length,
        pad_token_id=0,
        scale_embedding=False,
        vocab_size=model.vocab_size,
        _diffusers_version=VERSION,
    )


def preprocessor(model: clip_vision.Model) -> dict[str, Any]:
    """preprocessor_config.json: how an image encoder's images are prepared."""
    return dict(
        crop_size=dict(height=model.image_size, width=model.image_size),
        do_center_crop=True,
        do_convert_rgb=True,
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        feature_extractor_type='CLIPFeatureExtractor',
        image_mean=list(clip_vision.MEAN),
        image_processor_type='CLIPImageProcessor',
        image_std=list(clip_vision.STD),
        resample=3,  # bicubic
        rescale_factor=1 / 255,
        size=dict(shortest_edge=model.image_size),
    )


def read_normalizer(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a StableUnCLIPImageNormalizer."""
    fields = Fields(config, where, dict(embedding_dim=768))
    width = fields('embedding_dim')
    fields.finish()
    return spec('image_normalizer', width=width)


def write_normalizer(model: image_normalizer.Model) -> dict[str, Any]:
    """The config.json of a StableUnCLIPImageNormalizer."""
    return header('StableUnCLIPImageNormalizer') | dict(embedding_dim=model.width)


def _tower(fields: Fields, projected: bool) -> dict[str, Any]:
    width, inner = fields('hidden_size'), fields('intermediate_size')
    if inner != 4 * width:
        raise fields.error('intermediate_size', inner, f'it must be 4 hidden_size, {4 * width}')
    heads = fields('num_attention_heads')
    if width % heads:
        raise fields.error('num_attention_heads', heads, f'hidden_size {width} must be a multiple of it')
    fields.only('layer_norm_eps', 1e-5)
    projection = fields('projection_dim')  # which files without a projection state all the same
    return dict(
        width=width,
        num_layers=fields('num_hidden_layers'),
        num_heads=heads,
        activation=fields.only('hidden_act', 'quick_gelu', 'gelu'),
        projection_width=projection if projected else None,
    )


def _write_tower(model: clip_text.Model | clip_vision.Model, architecture: str) -> dict[str, Any]:
    return dict(
        architectures=[architecture],
        attention_dropout=0.0,
        hidden_act=model.activation,
        hidden_size=model.width,
        initializer_factor=1.0,
        initializer_range=0.02,
        intermediate_size=4 * model.width,
        layer_norm_eps=1e-5,
        num_attention_heads=model.num_heads,
        num_hidden_layers=model.num_layers,
        projection_dim=model.projection_width or model.width,
    )
