"""First-stage training restated in torch: one update of generator and discriminator by the published losses.

Autoencoders are those of diffusers; discriminator and LPIPS are plain torch layers.
Ref: Esser et al. 2021, arXiv:2012.09841, eq. 4 to 7, and Rombach et al. 2022, arXiv:2112.10752, appendix G.
"""

import torch
from torch import nn
from torch.nn import functional


def discriminator(channels: int, num_layers: int) -> nn.Module:
    """PatchGAN with the keys of the original, 'main.N'."""
    layers = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = channels
    for n in range(1, num_layers + 1):
        wider = channels * min(2**n, 8)
        stride = 2 if n < num_layers else 1
        layers += [
            nn.Conv2d(width, wider, 4, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.LeakyReLU(0.2),
        ]
        width = wider
    return nn.ModuleDict({'main': nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))})


class Lpips(nn.Module):
    """LPIPS with torchvision's numbering of the trunk's layers and the authors' keys of the heads."""

    def __init__(self, trunk: str):
        super().__init__()
        layers, self.taps, widths = [], [], []
        if trunk == 'vgg':
            width = 3
            for level, (features, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
                layers += [nn.MaxPool2d(2, 2)] if level else []
                for _ in range(count):
                    layers += [nn.Conv2d(width, features, 3, 1, 1), nn.ReLU()]
                    width = features
                self.taps.append(len(layers) - 1)
                widths.append(features)
        else:
            table = [
                (3, 64, 11, 4, 2),
                (64, 192, 5, 1, 2),
                (192, 384, 3, 1, 1),
                (384, 256, 3, 1, 1),
                (256, 256, 3, 1, 1),
            ]
            for level, conv in enumerate(table):
                layers += [nn.MaxPool2d(3, 2)] if level in (1, 2) else []
                layers += [nn.Conv2d(*conv), nn.ReLU()]
                self.taps.append(len(layers) - 1)
                widths.append(conv[1])
        self.features = nn.Sequential(*layers)
        for level, features in enumerate(widths):
            head = nn.ModuleDict(
                {'model': nn.Sequential(nn.Dropout(), nn.Conv2d(features, 1, 1, bias=False))}
            )
            setattr(self, f'lin{level}', head)

    def forward(self, x, y):  # -> [B, 1, 1, 1]
        shift = torch.tensor([-0.030, -0.088, -0.188], dtype=x.dtype)[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450], dtype=x.dtype)[:, None, None]
        x, y, total = (x - shift) / scale, (y - shift) / scale, 0
        for n, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if n in self.taps:
                a, b = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
                head = getattr(self, f'lin{self.taps.index(n)}')['model'][1]
                total = total + head((a - b).square()).mean((2, 3), keepdim=True)
        return total


class Players:
    """An autoencoder and its discriminator with their optimizers, Adam with betas .5 and .9."""

    def __init__(self, autoencoder, net_d, lpips, *, lr, disc_weight, kl_weight=None, codebook_weight=None):
        self.autoencoder, self.net_d, self.lpips = autoencoder, net_d, lpips
        self.disc_weight, self.kl_weight, self.codebook_weight = disc_weight, kl_weight, codebook_weight
        self.opt_g = torch.optim.Adam(autoencoder.parameters(), lr=lr, betas=(0.5, 0.9))
        self.opt_d = torch.optim.Adam(net_d.parameters(), lr=lr, betas=(0.5, 0.9))

    def autoencode(self, x, eps):
        """(reconstruction, weighed regularizer)."""
        if self.kl_weight is None:
            codes, loss, _ = self.autoencoder.quantize(
                self.autoencoder.quant_conv(self.autoencoder.encoder(x))
            )
            fake = self.autoencoder.decoder(self.autoencoder.post_quant_conv(codes))
            return fake, self.codebook_weight * loss
        posterior = self.autoencoder.encode(x).latent_dist
        fake = self.autoencoder.decode(posterior.mean + posterior.std * eps).sample
        return fake, self.kl_weight * posterior.kl().sum() / len(x)

    def generator_step(self, x, eps):
        fake, regularizer = self.autoencode(x, eps)
        error = (x - fake).abs()
        if self.lpips is not None:
            error = error + self.lpips(x, fake)
        nll = error.mean() if self.kl_weight is None else error.sum() / len(x)
        # Running averages are of what the discriminator learns from only; they change nothing in training.
        kept = {key: value.clone() for key, value in self.net_d.state_dict().items()}
        g = -self.net_d['main'](fake).mean()
        last = self.autoencoder.decoder.conv_out.weight
        d_nll, d_g = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (nll, g))
        weight = self.disc_weight * torch.clamp(d_nll.norm() / (d_g.norm() + 1e-4), 0, 1e4).detach()
        loss = nll + regularizer + weight * g
        self.opt_g.zero_grad()
        loss.backward()
        self.opt_g.step()
        self.net_d.load_state_dict(kept)
        return dict(loss=loss.item(), g_loss=g.item(), disc_weight=weight.item())

    def discriminator_step(self, x, eps):
        with torch.no_grad():
            fake, _ = self.autoencode(x, eps)
        real, fake = self.net_d['main'](x), self.net_d['main'](fake)
        loss = 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
        self.opt_d.zero_grad()
        loss.backward()
        self.opt_d.step()
        return dict(disc_loss=loss.item(), logits_real=real.mean().item(), logits_fake=fake.mean().item())
