"""Cutting rasters into windows and putting scores together again."""
