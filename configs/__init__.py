"""Named configs: one file a model or a training run, each with get_config(arg='') -> ConfigDict.

A file with VARIANTS, names of what get_config takes, is several configs: 'tiny:contrastive'. Any field that a named
component has can be set from the command line, written here or not: --config.optimizer.weight_decay=0.1.

models              part -> spec of ldm_jax/models; what build.parts builds
schedule            spec of the noise schedule of a diffusion model
parameterization    'eps' or 'v': what the denoising network, models.unet, predicts
loss                'l2' or 'l1': what it was trained with
scaling_factor      factor on the first stage's latents; None where the checkpoint holds it
latent_size         side of the latents at image_size, pixels; the network takes other sizes too
tokenizer           spec of the text encoder's tokenizer (tokenizer_2: of text_encoder_2)
context_length      tokens that the denoising network attends to, where they are not 77
sampling            how a model of few steps is sampled by default: some of sampler, grid and num_steps
guidance_scale      of a model whose own is another than 7.5; 1 is none
conditioning        in the settings of a trained model: kind, a module of ldm_jax/conditioning -> its fields

and of a training run, tools/train.py --config:

stage               spec of ldm_jax/training/stages: its name and fields; with latent_diffusion objective (what
                    diffusion.loss.objective takes), conditioning (kind, a module of ldm_jax/conditioning ->
                    dict(drop_rate=0.1, **its fields)), encode, samples (images while it trains, see
                    training/stages/samples.py) and adapter (a LoRA beside frozen parts, see
                    training/stages/adapter.py)
pretrained          part -> a model that the part is taken from, and stays; or dict(model=..., **changed fields)
warm_start          a model that the parts in `models` are trained on from; their settings are its own by default
optimizer           what training.optimizer.optimizer takes: name, lr, warmup_steps, curve, ...
discriminator_optimizer  what differs from it for a first stage's discriminator
run                 fields of training.run.Run; run.ema: the moving averages by name, see training/ema.py; run.parallel:
                    one device, pmap or a mesh (training/parallel/backend.py); run.loader: threads, workers, max_corrupt
data                spec of ldm_jax/data
export              dtype of the exported parameters
"""

import difflib
import importlib
import importlib.util
import json
import pathlib
import pkgutil


def names() -> list[str]:
    """Every config's name, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != 'common')


def load(name: str):
    """The ConfigDict of a config and, after a colon, its variant: 'tiny:contrastive', 'my/own.py', 'my/own.py:large'.

    Raises ValueError for an unknown name, with the nearest, or an unknown variant, with those there are;
    FileNotFoundError for a file that is not there.
    """
    place, variant = _split(name)
    module = _module(place)
    have = sorted(getattr(module, 'VARIANTS', ()))
    if variant and variant not in have:
        near = difflib.get_close_matches(variant, have, n=1)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ValueError(
            f'No variant {variant!r} of {place}; have {have}.{hint}'
            if have
            else f'{place} has no variants; got {name!r}.'
        )
    return module.get_config(variant) if variant else module.get_config()


def plain(config) -> dict:
    """A ConfigDict, or a dict, as plain data such as JSON holds."""
    return json.loads(config.to_json() if hasattr(config, 'to_json') else json.dumps(config))


def variants(name: str) -> tuple[str, ...]:
    """The variants of a config, in the order of its file."""
    return tuple(getattr(_module(name), 'VARIANTS', ()))


def summary(name: str) -> str:
    """One line about a config: the first of its docstring."""
    return _module(name).__doc__.partition('\n')[0]


def _split(name: str) -> tuple[str, str]:
    path, ending, rest = name.rpartition('.py')
    if ending and (not rest or rest.startswith(':')):
        return path + ending, rest[1:]
    place, _, variant = name.partition(':')
    return place, variant


def _module(name: str):
    if name.endswith('.py'):
        return _file(pathlib.Path(name))
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=4, cutoff=0.4)
        hint = f'; the nearest are {near}' if near else ' of ours, and a file of one ends in .py'
        raise ValueError(f'No config {name!r}{hint}. tools/inspect_model.py --list shows them all.')
    return importlib.import_module(f'configs.{name}')


def _file(path: pathlib.Path):
    if not path.is_file():
        beside = [str(other) for other in sorted(path.parent.glob('*.py'))]
        beside = beside or [f'configs/{name}.py' for name in names()]
        near = difflib.get_close_matches(str(path), beside, n=3)
        hint = f'; the nearest are {near}' if near else f'; have {beside[:8]}'
        raise FileNotFoundError(f'No config file {str(path)!r}{hint}.')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f'{path} is no Python: {error}.') from error
    if not hasattr(module, 'get_config'):
        raise ValueError(f'{path} is no config: it has no get_config.')
    return module
