"""Stable Diffusion and latent diffusion research in JAX and Flax.

Importing the package imports nothing heavy: each module imports what it needs.
"""

__version__ = '0.1.0'
