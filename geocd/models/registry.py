"""Architectures by name."""

from __future__ import annotations

from collections.abc import Mapping

from geocd.errors import ConfigError, UnknownModelError
from geocd.models.adversarial import StackedUNet
from geocd.models.fc_siam import FCSiamConc, FCSiamDiff
from geocd.models.network import ChangeNetwork
from geocd.models.siam_nested_lite import SiamNestedLite
from geocd.models.snunet import SiamNestedUNet, SNUNet

_NETWORKS: dict[str, type[ChangeNetwork]] = {
    "fc-siam-conc": FCSiamConc,
    "fc-siam-diff": FCSiamDiff,
    "siam-nested-lite": SiamNestedLite,
    "siam-nested-unet": SiamNestedUNet,
    "snunet": SNUNet,
    "stacked-unet": StackedUNet,
}


def known_models() -> list[str]:
    """Names of the architectures, sorted."""
    return sorted(_NETWORKS)


def _find(name: str) -> type[ChangeNetwork]:
    try:
        return _NETWORKS[name]
    except KeyError:
        raise UnknownModelError(
            f"no architecture called {name!r}; known are {', '.join(known_models())}"
        ) from None


def known_options(name: str) -> Mapping[str, tuple[str, ...]]:
    """Options of an architecture with the values of each, the default first.

    Raises:
        UnknownModelError: there is no architecture of that name.
    """
    return _find(name).options


def build_model(
    name: str,
    *,
    bands: int,
    classes: int,
    width: int,
    options: Mapping[str, str] = {},
) -> ChangeNetwork:
    """A network with fresh weights; never touches the network or the disk.

    A network takes two images (B, bands, H, W), sides multiples of its ``stride``, and gives
    logits (B, classes, H, W).

    Args:
        name: as in ``known_models``.
        bands: bands of one image.
        classes: number of outputs.
        width: channels at the finest resolution; the rest follows from it.
        options: choices within the architecture, as in ``known_options``; default: the published.

    Raises:
        UnknownModelError: there is no architecture of that name.
        ConfigError: the architecture has no such option, or the option no such value.
    """
    network = _find(name)
    for option, value in options.items():
        if option not in network.options:
            known = ", ".join(sorted(network.options)) or "none"
            raise ConfigError(f"{name} has no option {option!r}; known are: {known}")
        if value not in network.options[option]:
            known = ", ".join(network.options[option])
            raise ConfigError(f"{name}: {option} cannot be {value!r}; known are: {known}")
    return network(bands=bands, classes=classes, width=width, **options)
