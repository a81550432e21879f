"""SSIM: structural similarity of pairs of images, from local means, variances and covariance.

    ssim = (2 m_x m_y + C1) (2 c_xy + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))

averaged over places whose window lies inside the image, and over channels. C1 = (0.01 L)^2, C2 = (0.03 L)^2 with L the
range of the pixels. Ref: Wang et al. 2004, doi:10.1109/TIP.2003.819861.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from scipy import ndimage

from ldm_jax.build import unknown
from ldm_jax.evaluation.checks import check_pair
from ldm_jax.evaluation.row_store import RowStore
from ldm_jax.images import to_float

RANGE = 2.0  # of pixels in [-1, 1]
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
WINDOWS = ('gaussian', 'uniform')
SIGMA, RADIUS = 1.5, 5  # of the Gaussian: 11 x 11
SIDE = 7  # of the uniform window


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'ssim': mean over images}, 1 for equal ones.

    window: 'gaussian', 11 x 11 with sigma 1.5 as in the paper, or 'uniform', 7 x 7 with divisor n - 1, which is
        scikit-image's default. Numbers of the two differ.
    """

    window: str = 'gaussian'
    against: ClassVar[str] = 'pair'
    networks: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.window not in WINDOWS:
            raise unknown('SSIM window', self.window, list(WINDOWS))

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        return {'ssim': float(state.rows.mean())}

    def rows(self, batch):
        return self.scores(to_float(batch.images), to_float(batch.references))

    def scores(self, x, y):
        """Rows [B, 1] of images x and their references y [B, H, W, C] in [-1, 1].

        Raises ValueError for images smaller than the window.
        """
        x, y = check_pair(x, y)
        side = 2 * RADIUS + 1 if self.window == 'gaussian' else SIDE
        if min(x.shape[1:3]) < side:
            raise ValueError(f'SSIM of a window of {side} pixels cannot be taken of images {x.shape[1:3]}.')
        margin = side // 2
        inside = slice(margin, -margin)

        def local(a):  # [B, H - 2 margin, W - 2 margin, C]
            axes = (1, 2)
            if self.window == 'gaussian':
                smooth = ndimage.gaussian_filter(a, SIGMA, radius=RADIUS, axes=axes)
            else:
                smooth = ndimage.uniform_filter(a, SIDE, axes=axes)
            return smooth[:, inside, inside]

        mean_x, mean_y = local(x), local(y)
        unbiased = 1 if self.window == 'gaussian' else SIDE**2 / (SIDE**2 - 1)
        variances = unbiased * (local(x * x) - mean_x**2 + local(y * y) - mean_y**2)
        covariance = unbiased * (local(x * y) - mean_x * mean_y)
        numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        similarity = numerator / ((mean_x**2 + mean_y**2 + C1) * (variances + C2))
        return similarity.mean((1, 2, 3))[:, None]
