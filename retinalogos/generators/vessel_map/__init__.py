"""Artery and vein maps by diffusion, the photograph for a map, and its enlargement."""
