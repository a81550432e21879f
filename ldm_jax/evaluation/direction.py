"""Which way a number is better."""

# Numbers of which more is better; of all others less is.
LARGER = {
    'psnr', 'ssim', 'clip_score', 'inception_score', 'precision', 'recall', 'density', 'coverage', 'diversity',
}  # fmt: skip


def sign(name: str) -> int:
    """1 where more is better, -1 where less is; 'evaluate/psnr' is 'psnr'."""
    return 1 if name.rpartition('/')[2] in LARGER else -1
