"""Lesion maps: grade to seven-channel lesion map to photograph."""
