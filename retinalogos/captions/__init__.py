"""Captions: from a clinical record to what a reader would write, and what makes a caption unfit."""
