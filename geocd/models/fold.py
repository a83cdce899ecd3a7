"""Networks as they should run: batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geocd.models.network import ChangeNetwork


def _foldable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the children that are a convolution and the batch norm that follows it."""
    if isinstance(module, nn.Sequential):
        yield from itertools.pairwise(name for name, _ in module.named_children())
    yield from getattr(module, "folds", ())


def fold_batch_norms(network: ChangeNetwork) -> ChangeNetwork:
    """A copy of a network, without the batch norms that a convolution can take in.

    In a sequence that is every norm after a convolution; a module whose ``forward`` joins its
    children itself names the pairs in ``folds``. A norm whose input something else needs too,
    such as a skip, stays.

    Args:
        network: in evaluation mode.
    """
    folded = copy.deepcopy(network)
    for module in list(folded.modules()):
        for first, second in list(_foldable(module)):
            convolution, norm = module.get_submodule(first), module.get_submodule(second)
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                joined = fuse_conv_bn_eval(convolution, norm, transpose=transposed)
                setattr(module, first, joined)
                setattr(module, second, nn.Identity())
    return folded.eval()
