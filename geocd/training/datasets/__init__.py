"""Real pairs with labelled change: finding them, reading them, drawing samples, reporting."""

from geocd.training.datasets.coding import LabelCoding
from geocd.training.datasets.files import read_image, read_label, read_pixels
from geocd.training.datasets.inspection import inspect_pairs
from geocd.training.datasets.layouts import SUFFIXES, LabelledPair, find_pairs
from geocd.training.datasets.manifest import GeoreferencedPair, load_pairs, read_manifest
from geocd.training.datasets.report import DatasetReport, SplitReport
from geocd.training.datasets.sampler import Chip, LabelledPairs

__all__ = [
    "SUFFIXES",
    "Chip",
    "DatasetReport",
    "GeoreferencedPair",
    "LabelCoding",
    "LabelledPair",
    "LabelledPairs",
    "SplitReport",
    "find_pairs",
    "inspect_pairs",
    "load_pairs",
    "read_image",
    "read_label",
    "read_manifest",
    "read_pixels",
]
