"""How many processors this process keeps busy, whatever computes."""

from __future__ import annotations

import os
import sys

import cv2

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GDAL_NUM_THREADS")


def limit_threads(count: int) -> None:
    """Let OpenVINO, torch, OpenCV and GDAL use so many threads each in this process, from now on.

    Where several processes share a machine, threads for every processor in each of them would
    only push each other aside. OpenVINO and GDAL ask the environment whenever they begin; torch
    asked when it was loaded, if it was.

    Args:
        count: threads, at least 1.
    """
    for name in _VARIABLES:
        os.environ[name] = str(count)
    cv2.setNumThreads(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
