"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from geocd.errors import UnknownModelError
from geocd.models.siam_nested_lite import SiamNestedLite
from geocd.models.snunet import SiamNestedUNet, SNUNet

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "siam-nested-lite": SiamNestedLite,
    "siam-nested-unet": SiamNestedUNet,
    "snunet": SNUNet,
}


def known_models() -> list[str]:
    """Names of the architectures, sorted."""
    return sorted(_BUILDERS)


def build_model(name: str, *, bands: int, classes: int, width: int) -> nn.Module:
    """A network with fresh weights; never touches the network or the disk.

    A network takes two images (B, bands, H, W), sides multiples of its ``stride``, and gives
    logits (B, classes, H, W).

    Raises:
        UnknownModelError: there is no architecture of that name.
    """
    try:
        builder = _BUILDERS[name]
    except KeyError:
        raise UnknownModelError(
            f"no architecture called {name!r}; known are {', '.join(known_models())}"
        ) from None
    return builder(bands=bands, classes=classes, width=width)
