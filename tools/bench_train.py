"""Times a training step of a text-to-image U-Net, beside the same in diffusers and torch on the same cores.

    python tools/bench_train.py [--channels 64] [--size 32] [--batch 4] [--steps 8] [--threads 2]

The network is that of Stable Diffusion 1 with so many channels (320 are its own). A step is noise, forward, backward,
clipping, AdamW and one moving average, in float32, from latents and embedded texts. The two take turns, after one
step each that is not counted; printed are medians, and their ratio: above 1 this is the faster one.
Needs the test extra.
"""

import statistics
import time

from ldm_jax import command_line

LENGTH, WIDTH = 77, 768  # of the text


def main(args):
    jobs = {'ldm_jax': ours(args), 'diffusers': theirs(args)}
    (mine, step), (other, torch_step) = jobs['ldm_jax'], jobs['diffusers']
    if mine != other:
        raise SystemExit(f'error: the networks differ: {mine:,} parameters and {other:,}')
    step(), torch_step()
    times = {'ldm_jax': [], 'diffusers': []}
    for _ in range(args.steps):
        for name, (_, run) in jobs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(
        f'{mine:,} parameters, batch {args.batch} of {args.size} x {args.size} latents, {args.threads} threads'
    )
    print('| | seconds a step | least | most |\n|---|---|---|---|')
    for name, found in times.items():
        print(f'| {name} | {medians[name]:.3f} | {min(found):.3f} | {max(found):.3f} |')
    print(f'diffusers / ldm_jax {medians["diffusers"] / medians["ldm_jax"]:.2f}')


def ours(args):
    """(parameters, a step to call)."""
    import jax
    import numpy as np

    import configs
    from ldm_jax import trees
    from ldm_jax.build import build
    from ldm_jax.diffusion import prng
    from ldm_jax.training import ema, optimizer, state
    from ldm_jax.training import step as train_step

    config = configs.load('sd15')
    stage = build(
        'training.stages',
        dict(
            name='latent_diffusion',
            unet=build('models', dict(config.models.unet, channels=args.channels)),
            schedule=build('schedules', config.schedule),
            objective=dict(parameterization='eps'),
            latent_size=args.size,
            conditioning=dict(text={}),
        ),
    )
    tx = optimizer.optimizer(1000, args.batch, lr=1e-4, curve='constant', weight_decay=1e-2, decayed='all')
    decays = {'main': ema.named('constant')}
    key = prng.key(0)
    current = [state.of(stage, key, tx, decays)]
    step = jax.jit(train_step.of(stage, tx, decays), donate_argnums=0)
    rng = np.random.default_rng(0)
    batch = {
        'latents': rng.standard_normal((args.batch, args.size, args.size, 4), np.float32),
        'context': rng.standard_normal((args.batch, LENGTH, WIDTH), np.float32),
    }

    def run():
        current[0], metrics = step(current[0], batch, key)
        jax.block_until_ready((current[0], metrics))

    return trees.count(current[0].params), run


def theirs(args):
    """(parameters, a step to call)."""
    import diffusers
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(
        block_out_channels=tuple(args.channels * m for m in (1, 2, 4, 4)),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,  # the number of heads
    )
    average = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-2)
    scheduler = diffusers.DDPMScheduler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
    latents = torch.randn(args.batch, 4, args.size, args.size)
    context = torch.randn(args.batch, LENGTH, WIDTH)

    def run():
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (args.batch,))
        out = net(scheduler.add_noise(latents, noise, t), t, context).sample
        torch.nn.functional.mse_loss(out, noise).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(net.parameters()), 1e-4)

    return sum(p.numel() for p in net.parameters()), run


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    parser.add_argument('--channels', type=int, default=64)
    parser.add_argument('--size', type=int, default=32, help='of the latents')
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--threads', type=int, default=2, help='of torch; JAX takes all cores')
    return parser.parse_args()


if __name__ == '__main__':
    command_line.run(main, parse)
