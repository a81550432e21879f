"""The README's rows of networks and checkpoints: each kind of model as a public file, sampled by sample.py.

The pixels are those of the model directory that the file was written from.
"""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.checkpoints.convert import convert
from ldm_jax.requests.tasks import TASKS
from tests import tiny_models
from tests.contracts.test_tasks import FIELDS, folder  # noqa: F401 (a fixture)

TASK_OF = {kind: name for name, task in reversed(TASKS.items()) for kind in task.kinds} | {
    'sizes': 'text_to_image'
}
# Kinds that no pipeline of diffusers holds as these tiny models have them, with what the error names.
NOT_DIFFUSERS = {
    'upscale': 'scaling_factor', 'super_resolution': 'scaling_factor', 'class': 'class_embedder',
    'hole': 'in_channels', 'semantic': 'rescaler', 'layout': 'tokenizer',
}  # fmt: skip
FAST = ('text-diffusers', 'class-compvis')


def each():
    for kind in tiny_models.SETTINGS:
        for to in ('compvis', 'diffusers'):
            name = f'{kind}-{to}'
            yield pytest.param(kind, to, id=name, marks=() if name in FAST else pytest.mark.slow)


@pytest.mark.parametrize(('kind', 'to'), list(each()))
def test_a_public_file_makes_the_images_of_the_model(kind, to, folder, tmp_path, sample):  # noqa: F811
    model = tiny_models.save(folder, kind)
    public = tmp_path / (f'{kind}.safetensors' if to == 'compvis' else kind)
    if to == 'diffusers' and kind in NOT_DIFFUSERS:
        with pytest.raises(ValueError, match=NOT_DIFFUSERS[kind]):
            convert(model, str(public), to=to)
        assert not public.exists()
        return
    convert(model, str(public), to=to)
    files = {path.stem.upper(): str(path) for path in folder.glob('*.*')}
    needs = {field: files.get(str(value), value) for field, value in FIELDS[TASK_OF[kind]][0].items()}
    if 'tokenizer' in tiny_models.SETTINGS[kind]:
        needs['prompt'] = 'apple'
    options = (
        dict(num_steps=3, sampler='ddim', num_images=1, seed=3, scale=1, out=tmp_path / 'images') | needs
    )
    made = []
    for source in (model, public):
        report = sample(model=source, **options)
        assert report['task'] == TASK_OF[kind]
        with Image.open(report['images'][0]['path']) as image:
            made.append(np.asarray(image))
    np.testing.assert_array_equal(*made)
