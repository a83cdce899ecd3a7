"""Real pairs with labelled change: finding them, reading them, drawing samples, reporting."""

from geocd.training.datasets.files import read_pixels, read_truth
from geocd.training.datasets.layouts import SUFFIXES, LabelledPair, find_pairs

__all__ = ["SUFFIXES", "LabelledPair", "find_pairs", "read_pixels", "read_truth"]
