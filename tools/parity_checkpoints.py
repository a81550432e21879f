"""Converts whole checkpoints of random weights and compares what they compute with diffusers and transformers.

    python tools/parity_checkpoints.py [--only sd15,sd2_v,sdxl] [--folder DIR]

A folder that diffusers wrote is converted and loaded; exported as a single file, stripped of what we write into its
header, recognized and converted back, and loaded again; and diffusers reads that file, to the tensors it had
written. Weights are float16 on disk, which float32 holds exactly; all is computed in float32.

Prints a Markdown table of the largest and the mean error, each over the largest value of the reference's output.
Each step is a process of its own. SDXL needs about 16 GB of memory and 35 GB in the folder, and some ten minutes of a
quiet core; the others 6 and 10 GB, and three minutes. Needs the test extra (torch, diffusers, transformers).
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import pathlib
import shutil
import tempfile

from ldm_jax import command_line

MODELS = ('sd15', 'sd2_v', 'sdxl')


def main(args):
    import configs

    print('| model | layout | output | max error | mean error |\n|---|---|---|---|---|', flush=True)
    for name in args.only:
        settings = json.loads(configs.load(name).to_json())
        settings.pop('loss')  # of its training
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for row in rows(settings, pathlib.Path(folder), alone):
                print(f'| {name} | {" | ".join(row)} |', flush=True)


def alone(function, *args, **kwargs):
    """What a function returns in a process of its own, whose memory goes with it."""
    spawn = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _checksums(directory):
    """The checksum of each array of a model directory, without that of its settings."""
    from ldm_jax.checkpoints import store

    return {
        name: entry for name, entry in store.open_model(str(directory)).record.items() if 'shape' in entry
    }


def rows(settings, root, run):
    """(layout, output, largest, mean error) of a model's conversions below a folder; run: `alone`, or as it."""
    from ldm_jax.checkpoints.choice import Choice
    from ldm_jax.checkpoints.convert import convert
    from ldm_jax.checkpoints.diffusers import pipelines
    from ldm_jax.checkpoints.diffusers import settings as diffusers_settings

    folder, first, file, second = (root / name for name in ('theirs', 'ours', 'file.safetensors', 'again'))
    folder.mkdir()
    diffusers_settings.write_settings(settings, folder)
    kind = pipelines.kind_of(settings)
    expected = {}
    for part, place in kind.subfolders.items():
        run(make, folder / place)
        expected[part] = run(theirs, folder / place, settings, part)

    run(convert, folder, first)
    yield from compared('diffusers folder', settings, first, expected, run)
    run(convert, first, file, to='compvis')
    shutil.rmtree(first / 'unet')  # for the disk; the checksums stay
    run(strip, file)
    run(convert, file, second, choice=Choice(prediction=settings['parameterization']))
    yield from compared('single file', settings, second, expected, run)
    there, back = (_checksums(path) for path in (first, second))
    if there != back:
        raise SystemExit('The single file did not come back bit for bit.')
    count = run(read_by_diffusers, file, folder, kind.pipeline, list(kind.subfolders.values()))
    yield 'single file, read by diffusers', f'all {count:,} tensors', 'equal', 'equal'


def compared(layout, settings, directory, expected, run):
    import numpy as np

    for part, outputs in expected.items():
        found = run(ours, directory, settings, part)
        for name, reference in outputs.items():
            error = np.abs(found[name] - reference) / np.abs(reference).max()
            yield layout, f'{part}: {name}', f'{error.max():.1e}', f'{error.mean():.1e}'


def make(place):
    """Random weights for the network whose config.json is in a folder, written there by its own class."""
    import torch
    from parity import fill

    with torch.device('meta'):
        module = network(place, 'from_config')
    module = module.half().to_empty(device='cpu')
    fill(module)
    module.save_pretrained(place, max_shard_size='4GB')


def network(place, way):
    """A folder's network, by its class of diffusers or transformers; 'from_pretrained' with its weights."""
    import diffusers
    import transformers

    config = json.loads((place / 'config.json').read_text())
    if '_class_name' in config:
        cls = getattr(diffusers, config['_class_name'])
        return cls.from_config(config) if way == 'from_config' else cls.from_pretrained(place)
    cls = getattr(transformers, config['architectures'][0])
    return cls(cls.config_class(**config)) if way == 'from_config' else cls.from_pretrained(place)


def inputs(settings, part):
    """What goes into a part: arrays by name, images and latents with their channels last."""
    import numpy as np

    from ldm_jax.build import parts
    from ldm_jax.checkpoints.diffusers import pipelines

    models, rng = parts(settings), np.random.default_rng(0)
    model = models[part]

    def noise(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    if part.startswith('text_encoder'):
        tokens = rng.integers(0, 49000, (1, model.context_length)).astype(np.int32)
        tokens[:, 0], tokens[:, 60:] = 49406, 49407
        return dict(tokens=tokens)
    if part == 'first_stage':
        side = min(32, settings['latent_size'])
        image = noise(1, side * model.downscale, side * model.downscale, 3).clip(-1, 1)
        return dict(latents=noise(1, side, side, model.z_channels), image=image)
    side = min(settings['latent_size'], 64 if model.vector_width is None else 32)
    found = dict(x=noise(1, side, side, model.in_channels), context=noise(1, 77, model.context_width))
    if model.vector_width is not None:
        text = models['text_encoder_2']
        found['pooled'] = noise(1, text.projection_width)
        found['sizes'] = np.float32([[1024, 1024, 0, 0, 1024, 1024]])
        found['width'] = pipelines.sizes_width(model, text, pipelines.kind_of(settings))
    return found


def theirs(place, settings, part):
    """Outputs by name of a folder's network, in its own library."""
    import numpy as np
    import torch

    given = {name: torch.tensor(value) for name, value in inputs(settings, part).items()}
    module = network(place, 'from_pretrained').float().eval()
    with torch.no_grad():
        if part.startswith('text_encoder'):
            out = module(given['tokens'].long(), output_hidden_states=True)
            spec = settings['models'][part]
            last = spec.get('final_norm', True)
            found = {'context': out.last_hidden_state if last else out.hidden_states[spec['output_layer']]}
            if 'projection_width' in spec:
                found['projected'] = out.text_embeds
        elif part == 'first_stage':
            found = {
                'decoded': module.decode(given['latents'].movedim(-1, 1)).sample,
                'moments': module.encode(given['image'].movedim(-1, 1)).latent_dist.parameters,
            }
        else:
            more = {}
            if 'pooled' in given:
                more = dict(added_cond_kwargs=dict(text_embeds=given['pooled'], time_ids=given['sizes']))
            time = torch.tensor(500)
            found = {'output': module(given['x'].movedim(-1, 1), time, given['context'], **more).sample}
    return {
        name: np.ascontiguousarray((value.movedim(1, -1) if value.ndim == 4 else value).numpy())
        for name, value in found.items()
    }


def ours(directory, settings, part):
    """The same outputs of a converted part."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ldm_jax.checkpoints import loading
    from ldm_jax.models.layers import timestep_embedding
    from ldm_jax.types import Cond

    # On the device as they are read: never in memory twice.
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loaded = loading.load(str(directory), [part], shardings=device)
    model, given = loaded.parts[part], inputs(settings, part)

    @jax.jit
    def run(params):
        variables = {'params': params}
        if part.startswith('text_encoder'):
            out = model.apply(variables, given['tokens'])
            return {'context': out.context, 'projected': out.projected}
        if part == 'first_stage':
            decoded = model.apply(variables, given['latents'], method='decode')
            return {
                'decoded': decoded,
                'moments': model.apply(variables, given['image'], method='encode'),
            }
        vector = None
        if 'pooled' in given:
            sizes = timestep_embedding(given['sizes'][0], given['width']).reshape(1, -1)
            vector = jnp.concatenate([given['pooled'], sizes], axis=-1)
        cond = Cond(context=given['context'], vector=vector)
        return {'output': model.apply(variables, given['x'], jnp.array([500.0]), cond)}

    return jax.tree.map(np.asarray, run(loaded.params[part]))


def strip(file):
    """Takes what we write into a safetensors header out of it, which published files lack."""
    from ldm_jax.checkpoints.files import reader, safetensors

    with reader.open_file(file) as tensors:
        safetensors.write(file, tensors.specs, tensors.items())


def read_by_diffusers(file, folder, pipeline, places):
    """How many tensors diffusers makes of a single file; all must be those that it had written into the folder."""
    import diffusers
    import numpy as np
    import torch

    from ldm_jax.checkpoints.files import reader

    torch.set_default_dtype(torch.float16)  # in which the networks are made: half the memory
    try:
        pipe = getattr(diffusers, pipeline).from_single_file(
            str(file), config=str(folder), torch_dtype=torch.float16, local_files_only=True
        )
    finally:
        torch.set_default_dtype(torch.float32)
    count = 0
    for place in places:
        state = getattr(pipe, place).state_dict()
        with reader.open_folder(folder / place) as saved:
            if state.keys() != saved.keys():
                raise SystemExit(f'{place}: not the same keys: {sorted(state.keys() ^ saved.keys())[:5]}.')
            for key, array in saved.items():
                if not np.array_equal(state[key].numpy(), array):
                    raise SystemExit(f'{place}: {key} differs from what was written.')
            count += len(saved)
    return count


def names(text):
    chosen = text.split(',')
    if unknown := set(chosen) - set(MODELS):
        raise argparse.ArgumentTypeError(f'no models {sorted(unknown)}; have {list(MODELS)}.')
    return chosen


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('--only', type=names, default=MODELS, help='models, separated by commas')
    parser.add_argument('--folder', help='a disk with 35 GB; the temporary one by default')
    return parser.parse_args()


if __name__ == '__main__':
    command_line.run(main, parse)
