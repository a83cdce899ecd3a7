"""Real pairs with labelled change: finding them, reading them, drawing samples, reporting."""

from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import read_image, read_label, read_pixels, read_truth
from geocd.training.datasets.layouts import SUFFIXES, LabelledPair, find_pairs
from geocd.training.datasets.manifest import GeoreferencedPair, load_pairs, read_manifest

__all__ = [
    "SUFFIXES",
    "GeoreferencedPair",
    "LabelCoding",
    "LabelledPair",
    "find_pairs",
    "load_pairs",
    "read_image",
    "read_label",
    "read_manifest",
    "read_pixels",
    "read_truth",
]
