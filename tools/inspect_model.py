"""Shows the networks of a config: layers, parameters, multiply-adds, activation memory. Nothing is run.

    python tools/inspect_model.py --model sd15 [--size 768] [--batch 2] [--depth 2] [--json]
    python tools/inspect_model.py --list

The figures are of one evaluation, as ldm_jax/costs.py counts it; a first stage encodes and decodes.
"""

import gc
import json
import os

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__)
    add, count = parser.add_argument, command_line.at_least(1)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--model', help='name or file of a config, such as sd15')
    what.add_argument(
        '--list', action='store_true', help='lists every config, its parts and their parameters'
    )
    add('--size', type=count, help="side of the images; by default the config's")
    add('--batch', type=count, default=1, help='images at once')
    add('--depth', type=command_line.at_least(0), default=1, help='levels of modules to show; 0 is totals')
    add('--json', action='store_true', help='prints JSON instead of tables')
    return parser.parse_args()


def main(args):
    os.environ['JAX_PLATFORMS'] = 'cpu'  # tracing needs no accelerator
    gc.disable()  # a third of the time of tracing, which leaves little to collect
    list_configs(args) if args.list else show(args)


def own(config):
    """The networks of a config without those that it takes from the model that it trains on, which need no name."""
    return {part: spec for part, spec in config.models.items() if 'name' in spec}


def list_configs(args):
    """One config after the other, each printed as soon as it is counted."""
    import configs
    from ldm_jax import build, trees

    counted = {}
    for name in configs.names():
        config = configs.load(name)
        models = build.parts(dict(models=own(config)))
        for model in set(models.values()) - counted.keys():
            counted[model] = trees.count(trees.shapes(model))
        params = {part: counted[model] for part, model in models.items()}
        summary, total = configs.summary(name), sum(params.values())
        if args.json:
            print(json.dumps({'name': name, 'summary': summary, 'params': params}), flush=True)
        else:
            parts = ', '.join(f'{part} {number:,}' for part, number in params.items())
            parts = parts or f'trains what it starts from, {config.warm_start}'
            print(f'{name:24}{total:>15,}  {summary}\n{"":41}{parts}', flush=True)


def show(args):
    """A table for each part as soon as it is counted, or all of them as one JSON object."""
    import configs
    from ldm_jax import build, costs

    config, report = configs.load(args.model), {}
    models = own(config)
    if not models:
        raise ValueError(
            f'{args.model} has no networks of its own: it trains those of {config.warm_start!r}, and --dry_run of '
            'tools/train.py shows them.'
        )
    for part, model in build.parts(dict(models=models)).items():
        cost = costs.cost(model, inputs(args, config, part, model))
        report[part] = costs.report(cost, args.depth)
        if not args.json:
            print(f'{part}\n{costs.table(cost, args.depth)}\n', flush=True)
    total = sum(part['params'] for part in report.values())
    whole = {'model': args.model, 'batch': args.batch, 'params': total, 'parts': report}
    print(json.dumps(whole, indent=1) if args.json else f'{args.model}: {total:,} parameters')


def inputs(args, config, part, model):
    """Shapes of what a part is called with at --size and --batch."""
    import jax

    from ldm_jax import denoising

    image, latent = args.size or config.get('image_size'), config.get('latent_size')
    if args.size and latent:
        factor = config.image_size // latent
        latent, rest = divmod(args.size, factor)
        if rest:
            raise ValueError(f'--size must be a multiple of {factor}, the pixels a latent; got {args.size}.')
    size = {'unet': latent, 'first_stage': image, 'rescaler': image}.get(part)
    arguments = denoising.inputs_of(model, args.batch, size)
    if part == 'unet' and 'context_length' in config:
        x, t, cond = arguments
        context = (args.batch, config.context_length, model.context_width)
        arguments = (x, t, cond.replace(context=jax.ShapeDtypeStruct(context, cond.context.dtype)))
    return arguments


if __name__ == '__main__':
    command_line.run(main, parse)
