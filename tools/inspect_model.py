"""Shows the networks of a config: layers, parameters, multiply-adds, activation memory. Nothing is run.

    python tools/inspect_model.py --model sd15 [--size 768] [--batch 2] [--depth 2] [--json]
    python tools/inspect_model.py --list

The figures are of one evaluation, as ldm_jax/costs.py counts it; a first stage encodes and decodes.
"""

import gc
import json
import os

from absl import app, flags

MODEL = flags.DEFINE_string('model', None, 'Name of a config, such as sd15.')
LIST = flags.DEFINE_bool('list', False, 'Lists every config: what it is, its parts, their parameters.')
SIZE = flags.DEFINE_integer('size', None, "Side of the images; by default the config's.", lower_bound=1)
BATCH = flags.DEFINE_integer('batch', 1, 'Images at once.', lower_bound=1)
DEPTH = flags.DEFINE_integer('depth', 1, 'Levels of modules to show; 0 is totals.', lower_bound=0)
JSON = flags.DEFINE_bool('json', False, 'Prints JSON instead of tables.')


def main(argv):
    if len(argv) > 1 or LIST.value == (MODEL.value is not None):
        raise app.UsageError('Give --model NAME or --list, and nothing else without a flag.')
    os.environ['JAX_PLATFORMS'] = 'cpu'  # tracing needs no accelerator
    gc.disable()  # a third of the time of tracing, which leaves little to collect
    try:
        list_configs() if LIST.value else show(MODEL.value)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from error


def list_configs():
    """One config after the other, each printed as soon as it is counted."""
    import configs
    from ldm_jax import build, trees

    counted = {}
    for name in configs.names():
        models = build.parts(configs.load(name))
        for model in set(models.values()) - counted.keys():
            counted[model] = trees.count(trees.shapes(model))
        params = {part: counted[model] for part, model in models.items()}
        summary, total = configs.summary(name), sum(params.values())
        if JSON.value:
            print(json.dumps({'name': name, 'summary': summary, 'params': params}), flush=True)
        else:
            parts = ', '.join(f'{part} {number:,}' for part, number in params.items())
            print(f'{name:24}{total:>15,}  {summary}\n{"":41}{parts}', flush=True)


def show(name):
    """A table for each part as soon as it is counted, or all of them as one JSON object."""
    import configs
    from ldm_jax import build, costs

    config, report = configs.load(name), {}
    for part, model in build.parts(config).items():
        cost = costs.cost(model, inputs(config, part, model))
        report[part] = costs.report(cost, DEPTH.value)
        if not JSON.value:
            print(f'{part}\n{costs.table(cost, DEPTH.value)}\n', flush=True)
    total = sum(part['params'] for part in report.values())
    whole = {'model': name, 'batch': BATCH.value, 'params': total, 'parts': report}
    print(json.dumps(whole, indent=1) if JSON.value else f'{name}: {total:,} parameters')


def inputs(config, part, model):
    """Shapes of what a part is called with at --size and --batch."""
    import jax

    from ldm_jax import denoising

    image, latent = SIZE.value or config.get('image_size'), config.get('latent_size')
    if SIZE.value and latent:
        factor = config.image_size // latent
        latent, rest = divmod(SIZE.value, factor)
        if rest:
            raise ValueError(f'--size must be a multiple of {factor}, the pixels a latent; got {SIZE.value}.')
    size = {'unet': latent, 'first_stage': image, 'rescaler': image}.get(part)
    arguments = denoising.inputs_of(model, BATCH.value, size)
    if part == 'unet' and 'context_length' in config:
        x, t, cond = arguments
        context = (BATCH.value, config.context_length, model.context_width)
        arguments = (x, t, cond.replace(context=jax.ShapeDtypeStruct(context, cond.context.dtype)))
    return arguments


if __name__ == '__main__':
    app.run(main)
