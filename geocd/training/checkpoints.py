"""The state of a run as a file: tensors and numbers only, checked when it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from geocd.errors import DamagedWeightsError
from geocd.outputs import replacing


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state; an older file survives a failure.

    Raises:
        OutputError: the system refused the write, or the disk is full.
    """
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``write_checkpoint`` wrote, on the CPU.

    Raises:
        DamagedWeightsError: the file is not whole.
    """
    advice = f"{path} is damaged; remove it to train from the beginning"
    try:
        # torch does not check the sums that its archive holds.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise DamagedWeightsError(f"{advice} ({broken})")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedWeightsError:
        raise
    except Exception as error:  # what a damaged archive raises is anybody's guess
        raise DamagedWeightsError(f"{advice} ({error})") from None
    return state
