"""What the values of label files mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocd.errors import ConfigError, DatasetError
from geocd.training.tiles import IGNORE

_CUT = 128
"""Least value of change in a label whose values were blurred by compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCoding:
    """The values of label files, and the class planes that they become."""

    classes: tuple[str, ...] = ("building", "road")
    """Class planes, in the order of the network's outputs."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Value of each class that the set labels; empty: any value but ``none`` and ``ignore`` is
    change of the first class. Classes that the set does not label are ignored."""
    none: int = 0
    """Value of 'no change'."""
    ignore: int | None = None
    """Value of pixels of which nothing is known; None: there are none."""

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes must be distinct names, got {self.classes}")
        unknown = sorted(set(self.values) - set(self.classes))
        if unknown:
            raise ConfigError(
                f"label values must be given for classes of {', '.join(self.classes)}; "
                f"got {', '.join(unknown)}"
            )
        used = [*self.values.values(), self.none]
        used += [] if self.ignore is None else [self.ignore]
        if len(set(used)) != len(used):
            raise ConfigError(f"classes, none and ignore need distinct label values, got {used}")

    @property
    def binary(self) -> bool:
        """True if a label tells change from no change and nothing else."""
        return self.ignore is None and len(self.values) <= 1

    def planes(self, label: NDArray[Any], *, name: str, lossy: bool = False) -> NDArray[np.uint8]:
        """Class planes of a label.

        Args:
            label: values, shape (height, width), integers.
            name: the file, for messages.
            lossy: compression has blurred the values; a binary label is cut at 128.

        Returns:
            Shape (classes, height, width), uint8: 0, 1 or ``IGNORE``.

        Raises:
            DatasetError: values that mean nothing, or a blurred label that is not binary.
        """
        planes = np.full((len(self.classes), *label.shape), IGNORE, np.uint8)
        if lossy:
            self._refuse_blurred(name)
            planes[self.classes.index(next(iter(self.values or self.classes)))] = label >= _CUT
            return planes
        if not self.values:
            planes[0] = label != self.none
        else:
            self._refuse_unknown(label, name)
            for index, value in ((self.classes.index(c), v) for c, v in self.values.items()):
                planes[index] = label == value
        if self.ignore is not None:
            planes[:, label == self.ignore] = IGNORE
        return planes

    def _refuse_blurred(self, name: str) -> None:
        if not self.binary or self.none >= _CUT:
            raise DatasetError(
                f"{name} is compressed with losses, which blurs its values: only change and no "
                "change can be told apart; take lossless labels (PNG), or set one class and no "
                "ignore value"
            )

    def _refuse_unknown(self, label: NDArray[Any], name: str) -> None:
        known = [*self.values.values(), self.none]
        known += [] if self.ignore is None else [self.ignore]
        wrong = sorted(set(np.unique(label).tolist()) - set(known))
        if wrong:
            meaning = ", ".join(f"{value} {c}" for c, value in self.values.items())
            raise DatasetError(
                f"{name} has wrong class values {', '.join(map(str, wrong[:8]))}"
                f"{' ...' if len(wrong) > 8 else ''}; wanted are {self.none} none, {meaning}"
                f"{'' if self.ignore is None else f', {self.ignore} ignore'}; set the values of "
                "the classes, or an ignore value (--class NAME=VALUE, --ignore VALUE)"
            )
