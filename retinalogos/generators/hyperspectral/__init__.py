"""Hyperspectral cubes of the retina: a vector-quantised autoencoder and diffusion in its latents.

After Boschet's system at Optina Diagnostics, on Medical Diffusion (Khader et al., Sci Rep 2023, 13:7303).
"""
