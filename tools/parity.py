"""Compares networks at full size with their reference implementations: the same random weights, float32, CPU.

    python tools/parity.py [--only sd15_unet,vae_decode,clip_l,open_clip_h,sdxl_unet]

Prints a Markdown table of the largest and the mean error, each over the largest value of the reference's
output. The SDXL row needs 12 GB of memory, the others 5. Needs the test extra (torch, diffusers, transformers).
"""

import gc

from ldm_jax import command_line

CASES = ('sd15_unet', 'vae_decode', 'clip_l', 'open_clip_h', 'sdxl_unet')


def main(args):
    import jax
    import numpy as np
    import torch

    from ldm_jax import trees
    from ldm_jax.checkpoints import apply_layout

    print('| network | input | parameters | max error | mean error |\n|---|---|---|---|---|', flush=True)
    for name in args.only.split(','):
        with torch.device('meta'):
            module, model, layout, call, ours, label = case(name)
        module = module.to_empty(device='cpu').eval()
        fill(module)
        with torch.no_grad():
            expected = call(module).numpy()
        state = {key: value.detach().numpy() for key, value in module.state_dict().items()}
        shapes = trees.shapes(model)
        params = apply_layout.import_params(layout, state, shapes)  # views: the memory is still torch's
        del module, state
        leaves, tree = jax.tree.flatten(params)
        del params
        for i, leaf in enumerate(leaves):  # one at a time, so that both never hold all of it
            leaves[i] = jax.device_put(np.ascontiguousarray(leaf))
            del leaf
        gc.collect()
        output = np.asarray(jax.jit(ours)({'params': jax.tree.unflatten(tree, leaves)}))
        error = np.abs(output - expected) / np.abs(expected).max()
        count = f'{trees.count(shapes):,}'
        print(f'| {name} | {label} | {count} | {error.max():.1e} | {error.mean():.1e} |', flush=True)
        del leaves, output, expected
        gc.collect()


def fill(module):
    """Random weights in place, of their fan-in's scale, so that signals neither vanish nor grow."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(mean=float(key.endswith('weight')), std=0.1)
        for buffer in module.buffers():  # position_ids
            buffer.copy_(torch.arange(buffer.numel()).reshape(buffer.shape))


def case(name):
    """(torch module, our model, layout, torch call, our call, what goes in) of a row."""
    import diffusers
    import jax.numpy as jnp
    import numpy as np
    import torch
    import transformers

    import configs
    from ldm_jax.build import parts
    from ldm_jax.checkpoints.layouts import autoencoder, diffusers_unet, transformers_clip
    from ldm_jax.types import Cond

    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    def channels_first(x):
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    if name == 'sd15_unet':
        model = parts(configs.load('sd15'))['unet']
        module = diffusers.UNet2DConditionModel(cross_attention_dim=768)
        x, context = noise(1, 64, 64, 4), noise(1, 77, 768)
        inputs = channels_first(x), torch.tensor(500, device='cpu'), torch.from_numpy(context)
        return (
            module,
            model,
            diffusers_unet.layout(model),
            lambda m: m(*inputs).sample.permute(0, 2, 3, 1),
            lambda p: model.apply(p, x, jnp.array([500.0]), Cond(context=context)),
            'latent 64 x 64, 77 tokens',
        )
    if name == 'sdxl_unet':
        model = parts(configs.load('sdxl'))['unet']
        module = diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'),
            up_block_types=('CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type='text_time',
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        x, context, pooled = noise(1, 32, 32, 4), noise(1, 77, 2048), noise(1, 1280)
        sizes = np.float32([[1024, 1024, 0, 0, 1024, 1024]])
        added = {'text_embeds': torch.from_numpy(pooled), 'time_ids': torch.from_numpy(sizes)}
        inputs = channels_first(x), torch.tensor(500, device='cpu'), torch.from_numpy(context)

        def ours(p):
            from ldm_jax.models.layers import timestep_embedding

            vector = jnp.concatenate([pooled, timestep_embedding(sizes[0], 256).reshape(1, -1)], axis=-1)
            return model.apply(p, x, jnp.array([500.0]), Cond(context=context, vector=vector))

        return (
            module,
            model,
            diffusers_unet.layout(model, linear_projection=True),
            lambda m: m(*inputs, added_cond_kwargs=added).sample.permute(0, 2, 3, 1),
            ours,
            'latent 32 x 32, 77 tokens',
        )
    if name == 'vae_decode':
        model = parts(configs.load('kl_f8'))['first_stage']
        module = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=('DownEncoderBlock2D',) * 4,
            up_block_types=('UpDecoderBlock2D',) * 4,
            latent_channels=4,
        )
        z = noise(1, 64, 64, 4)
        return (
            module,
            model,
            autoencoder.layout(model, 'diffusers'),
            lambda m: m.decode(channels_first(z)).sample.permute(0, 2, 3, 1),
            lambda p: model.apply(p, z, method='decode'),
            'image 512 x 512',
        )
    config = {'clip_l': 'clip_vit_l14_text', 'open_clip_h': 'open_clip_vit_h14_text'}[name]
    model = parts(configs.load(config))['text_encoder']
    module = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=model.width,
            intermediate_size=4 * model.width,
            num_hidden_layers=model.num_layers,
            num_attention_heads=model.num_heads,
            hidden_act=model.activation,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    tokens = rng.integers(0, 49000, (1, 77)).astype(np.int32)
    tokens[:, 0], tokens[:, 60:] = 49406, 49407
    ids = torch.from_numpy(tokens).long()
    return (
        module,
        model,
        transformers_clip.layout(model, nested=False),
        lambda m: m(ids).last_hidden_state,
        lambda p: model.apply(p, tokens).context,
        '77 tokens',
    )


def parse():
    parser = command_line.Parser(__doc__, compiles=True)
    parser.add_argument('--only', default=','.join(CASES), help='rows, separated by commas')
    args = parser.parse_args()
    if unknown := set(args.only.split(',')) - set(CASES):
        parser.error(f'No rows {sorted(unknown)}; have {list(CASES)}.')
    return args


if __name__ == '__main__':
    command_line.run(main, parse)
