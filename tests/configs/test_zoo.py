"""Every published model by name: parameter counts, multiply-adds, and facts that must agree."""

import functools
import gc

import pytest

import configs
from ldm_jax import build, costs, trees

VAE = {'first_stage': 83_653_863}
VQ_F4 = {'first_stage': 55_322_782}
CLIP_L = {'text_encoder': 123_060_480}
OPEN_CLIP_H = {'text_encoder': 340_387_840}  # 23 of 24 layers
SD1, SD2 = VAE | CLIP_L, VAE | OPEN_CLIP_H
SDXL = VAE | CLIP_L | {'text_encoder_2': 694_659_840}
CLIP_L_VISION = {'image_encoder': 303_966_208}
OPEN_CLIP_H_VISION = {'image_encoder': 632_076_800}

# Where not even millions were published (vision towers, class embedders, rescaler, TAESD), or those only (the
# LDM's encoders), the modules of the reference implementations were counted.
PARAMS = {
    'sd15': {'unet': 859_520_964} | SD1,
    'sd15_inpainting': {'unet': 859_535_364} | SD1,
    'instruct_pix2pix': {'unet': 859_532_484} | SD1,
    'sd2_base': {'unet': 865_910_724} | SD2,
    'sd2_v': {'unet': 865_910_724} | SD2,
    'sd2_depth': {'unet': 865_913_604} | SD2,
    'sd2_inpainting': {'unet': 865_925_124} | SD2,
    'sd21_unclip_l': {'unet': 869_517_764} | SD2 | CLIP_L_VISION | {'image_normalizer': 2 * 768},
    'sd21_unclip_h': {'unet': 870_173_124} | SD2 | OPEN_CLIP_H_VISION | {'image_normalizer': 2 * 1024},
    'x4_upscaler': {'unet': 473_398_020, 'first_stage': 55_325_927} | OPEN_CLIP_H,
    'sdxl': {'unet': 2_567_463_684} | SDXL,
    'sdxl_inpainting': {'unet': 2_567_463_684 + 14_400} | SDXL,
    'sdxl_refiner': {'unet': 2_259_526_660, 'text_encoder': 694_659_840} | VAE,
    # Distilled: BK-SDM's and Segmind's three are those of their cards to the last parameter (579,384,964 and
    # 323,384,964 of small-sd and tiny-sd), the others' to the million that is stated; diffusers counts them all so.
    'bk_sdm_base': {'unet': 579_384_964} | SD1,
    'bk_sdm_small': {'unet': 482_346_884} | SD1,
    'bk_sdm_tiny': {'unet': 323_384_964} | SD1,
    'ssd_1b': {'unet': 1_331_334_404} | SDXL,
    'vega': {'unet': 745_225_604} | SDXL,
    'koala_700m': {'unet': 782_822_724} | SDXL,
    'koala_1b': {'unet': 1_161_184_324} | SDXL,
    'lcm_dreamshaper_v7': {'unet': 859_520_964 + 256 * 320} | SD1,
    'playground_v25': {'unet': 2_567_463_684} | SDXL,
    'ldm_celeba256': {'unet': 274_056_163} | VQ_F4,
    'ldm_ffhq256': {'unet': 274_056_163} | VQ_F4,
    'ldm_lsun_beds256': {'unet': 274_056_163} | VQ_F4,
    'ldm_lsun_churches256': {'unet': 294_966_916} | VAE,
    'ldm_cin256': {'unet': 394_984_196, 'first_stage': 67_717_295, 'class_embedder': 512_000},
    'ldm_cin256_v2': {'unet': 400_920_579, 'class_embedder': 512_512} | VQ_F4,
    'ldm_text2img256': {'unet': 403_623_939, 'text_encoder': 166_590_080} | VQ_F4,
    'ldm_txt2img_1p4b': {'unet': 872_300_484, 'text_encoder': 542_895_360} | VAE,
    'ldm_bsr_sr': {'unet': 113_622_563} | VQ_F4,
    'ldm_inpainting_big': {'unet': 387_245_827, 'first_stage': 53_219_486},
    'ldm_layout2img': {'unet': 246_277_379, 'text_encoder': 54_656_000} | VQ_F4,
    'ldm_semantic_synthesis256': {'unet': 215_229_315, 'rescaler': 546} | VQ_F4,
    'ldm_semantic_synthesis512': {'unet': 215_229_315, 'rescaler': 546} | VQ_F4,
    'rdm768': {'unet': 1_335_480_400, 'first_stage': 69_610_963, 'text_encoder': 123_060_480 + 768 * 768}
    | CLIP_L_VISION,
    'kl_f4': {'first_stage': 55_312_063},
    'kl_f8': VAE,
    'kl_f16': {'first_stage': 69_610_963},
    'kl_f32': {'first_stage': 103_880_131},
    'vq_f4': VQ_F4,
    'vq_f4_noattn': {'first_stage': 53_219_486},
    'vq_f8': {'first_stage': 67_717_295},
    'vq_f8_n256': {'first_stage': 67_652_783},
    'vq_f16': {'first_stage': 69_593_371},
    'sdxl_vae': VAE,
    'x4_upscaler_vae': {'first_stage': 55_325_927},
    'taesd': {'first_stage': 1_222_532 + 1_222_531},
    'clip_vit_l14_text': CLIP_L,
    'open_clip_vit_h14_text': OPEN_CLIP_H,
    'open_clip_vit_bigg14_text': {'text_encoder': 694_659_840},
    'clip_vit_l14_vision': CLIP_L_VISION,
    'open_clip_vit_h14_vision': OPEN_CLIP_H_VISION,
    'ldm_bert_1280': {'text_encoder': 542_895_360},
    'ldm_bert_640': {'text_encoder': 166_590_080},
    'ldm_bert_512': {'text_encoder': 54_656_000},
}
PIPELINES = [name for name, parts in PARAMS.items() if 'unet' in parts]


GMACS = {'sd15': (64, 401.6), 'sdxl': (128, 3380.6)}  # of one evaluation, by latent size


@pytest.fixture(autouse=True, scope='module')
def no_collection():
    """Tracing makes millions of small objects that live on; looking through them is a third of the time."""
    gc.disable()
    yield
    gc.enable()


@functools.cache  # many rows share a part
def params(model):
    return trees.count(trees.shapes(model))


@functools.cache
def unet_cost(name):
    unet = build.parts(configs.load(name))['unet']
    return costs.cost(unet, unet.inputs(size=GMACS[name][0]))


@pytest.mark.slow
@pytest.mark.parametrize('name', PARAMS)
def test_parameter_counts_are_the_published_ones(name):
    models = build.parts(configs.load(name))
    counted = {'unet': unet_cost(name).params} if name in GMACS else {}
    counted |= {part: params(model) for part, model in models.items() if part not in counted}
    assert counted == PARAMS[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', GMACS)
def test_multiply_adds_are_the_published_ones(name):
    assert round(unet_cost(name).macs / 1e9, 1) == GMACS[name][1]


@pytest.mark.parametrize('name', PARAMS)
def test_docstring_states_what_to_expect(name):
    text = configs._module(name).__doc__
    assert [part for part, number in PARAMS[name].items() if f'{part} {number:,}' not in text] == []
    assert 'Ref: ' in text
    assert configs.summary(name).endswith('.')


@pytest.mark.parametrize('name', configs.names())
def test_every_config_builds(name):
    config = configs.load(name)
    own = {part: spec for part, spec in config.models.items() if 'name' in spec}
    assert build.parts(dict(models=own)) or config.warm_start  # else of the networks that it trains on
    for part, family in (('schedule', 'schedules'), ('tokenizer', 'text'), ('tokenizer_2', 'text')):
        if part in config:
            build.build(family, config[part])


@pytest.mark.parametrize('name', PIPELINES)
def test_parts_fit_together(name):
    config = configs.load(name)
    models = build.parts(config)
    unet, first_stage = models['unet'], models['first_stage']
    assert config.latent_size * first_stage.downscale == config.image_size
    assert config.latent_size % unet.downscale == 0
    assert unet.out_channels == first_stage.z_channels
    assert config.parameterization in ('eps', 'v', 'edm')
    assert config.loss in ('l1', 'l2')
    encoders = [
        models[part] for part in ('text_encoder', 'text_encoder_2', 'class_embedder') if part in models
    ]
    assert sum(encoder.width for encoder in encoders) == (unet.context_width or 0)
    for encoder, tokenizer in (('text_encoder', 'tokenizer'), ('text_encoder_2', 'tokenizer_2')):
        if tokenizer in config:
            assert config[tokenizer].context_length == models[encoder].context_length
    if 'rescaler' in models:
        assert unet.in_channels == unet.out_channels + models['rescaler'].out_channels


def test_the_zoo_is_whole():
    assert set(PARAMS) <= set(configs.names())


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(ValueError, match=r"No config 'sd16'; the nearest are \['sd15'.*--list"):
        configs.load('sd16')
    with pytest.raises(ValueError, match='No config'):
        configs.load('common')  # a module there, but no config


def test_a_name_may_carry_its_argument():
    assert configs.load('sd15:') == configs.load('sd15')
