import dataclasses

import pytest

from ldm_jax.pipelines import kinds, parts
from tests.checkpoints import folders


@pytest.mark.parametrize(
    ('name', 'task'),
    [
        ('StableDiffusionPipeline', 'text_to_image'),
        ('StableDiffusionXLPipeline', 'text_to_image'),
        ('StableDiffusionInpaintPipeline', 'inpaint'),
        ('StableDiffusionXLInpaintPipeline', 'inpaint'),
        ('StableDiffusionInstructPix2PixPipeline', 'edit'),
        ('StableDiffusionDepth2ImgPipeline', 'depth_to_image'),
        ('StableDiffusionUpscalePipeline', 'upscale'),
        ('StableUnCLIPImg2ImgPipeline', 'image_variation'),
        ('LDMTextToImagePipeline', 'text_to_image'),
        ('LDMPipeline', None),
        ('LDMSuperResolutionPipeline', None),
    ],
)
def test_every_kind_of_folder_has_its_task(name, task):
    assert kinds.kind(parts.from_settings(folders.TINY[name])) == task


def test_errors_say_what_is_wanted_and_what_there_is():
    found = parts.from_settings(folders.TINY['StableDiffusionPipeline'])
    kinds.check(found, 'inpaint', 'inpaint', 'text_to_image')
    with pytest.raises(
        ValueError, match=r'^edit is .* the latents of a picture\. This one takes a text and nothing'
    ):
        kinds.check(found, 'edit', 'edit')
    textless = dataclasses.replace(found, text_encoder=None)
    with pytest.raises(ValueError, match=r'This one takes no text\.'):
        kinds.check(textless, 'edit', 'edit')
    strange = dataclasses.replace(found, unet=dataclasses.replace(found.unet, in_channels=11))
    with pytest.raises(ValueError, match='takes 7 channels beside its latents'):
        kinds.check(strange, 'edit', 'edit')
