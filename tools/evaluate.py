"""Measures images, in a folder or zip, against reference images: FID, KID, PSNR and the rest, under named protocols.

    python tools/evaluate.py --images samples --data photos.zip --metrics fid:clean,kid --networks models/inception
    python tools/evaluate.py --images reconstructions --data originals --metrics psnr,ssim

Run again, it goes on at the batch where it was stopped. OUT/result.json has the numbers and everything that they
depended on. tools/convert_loss_networks.py makes models/inception.
"""

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    add, count = parser.add_argument, command_line.at_least(1)
    add(
        '--images',
        required=True,
        help='the images to measure: a folder or zip, such as tools/sample.py wrote',
    )
    add('--data', help='reference images: a folder or zip; for pairs in the same order')
    add('--metrics', required=True, help='with commas: fid:clean, kid:clip:subset_size=100, psnr, ...')
    add(
        '--networks',
        nargs='*',
        default=[],
        help='model directories or public files of the networks they need',
    )
    add('--num_images', type=count, help='the first so many of both; all by default')
    add('--batch_size', type=count, default=32, help='images that are measured at once')
    add('--out', default='evaluation', help='the folder to write to')
    return parser.parse_args()


def main(args):
    import sys

    from ldm_jax.evaluation import names, networks, run

    report = run.evaluate(
        args.images,
        args.data,
        names.metrics(args.metrics),
        networks.open_networks(args.networks),
        args.out,
        num_images=args.num_images,
        batch_size=args.batch_size,
    )
    for side, skipped in report['skipped'].items():
        if skipped:
            print(
                f'warning: {len(skipped)} {side} could not be read: {"; ".join(skipped[:3])}', file=sys.stderr
            )
    for warning in report['warnings']:
        print(f'warning: {warning}', file=sys.stderr)
    for name, values in report['numbers'].items():
        print(f'{name}: ' + ', '.join(f'{key} {value:.6g}' for key, value in values.items()), end='')
        print(f' ({report["counts"]["images"]} images)')


if __name__ == '__main__':
    command_line.run(main, parse, 'a smaller --batch_size')
