"""Retinal vessels measured on masks: their anatomy."""
