"""Retinal vessels measured on masks: their anatomy, and how far two masks agree."""
