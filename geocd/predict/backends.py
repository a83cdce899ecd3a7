"""Which backend runs a network, in which precision, and where."""

from __future__ import annotations

import ctypes
import platform
import sys
import warnings
from pathlib import Path

from geocd.config import BackendName, PrecisionName, PredictConfig
from geocd.errors import BackendError, ConfigError, GeocdWarning
from geocd.models.files import find_weights
from geocd.predict import openvino
from geocd.predict.openvino import Calibration, OpenVINOPredictor
from geocd.predict.predictor import Predictor


def open_predictor(
    weights: str,
    *,
    window: tuple[int, int],
    config: PredictConfig,
    calibration: Calibration | None = None,
) -> Predictor:
    """Weights, ready to run.

    ``auto`` takes torch where it sees a GPU and OpenVINO on processors; there, torch takes over
    with a warning if OpenVINO is missing or fails.

    Args:
        weights: bundled name or path.
        window: (height, width) of the windows to come; others can be scored, later.
        config: backend, precision, device.
        calibration: gives pairs for the conversion to int8, if that was not made before.

    Raises:
        UnknownWeightsError: neither a bundled name nor a file.
        ConfigError: the settings exclude each other, or the machine lacks what they ask for.
        BackendError: the backend that was asked for cannot be used.
    """
    if _choose(config) == "torch":
        return _torch(weights, config)
    try:
        predictor = OpenVINOPredictor(
            find_weights(weights), precision=config.precision, streams=config.batch_size,
            calibration=calibration,
        )  # fmt: skip
        predictor.prepare(window)
    except (ImportError, BackendError) as error:
        if isinstance(error, ImportError):
            error = BackendError(f"OpenVINO cannot be used ({error}); try --backend torch")
        if config.backend == "openvino" or config.precision == "int8":
            raise error from None
        warnings.warn(f"{error.args[0]}; torch runs the network", GeocdWarning, stacklevel=2)
        return _torch(weights, config)
    return predictor


def chosen(config: PredictConfig) -> tuple[BackendName, PrecisionName]:
    """Backend and precision that ``open_predictor`` takes on this machine.

    Raises:
        ConfigError: as ``open_predictor``.
    """
    if _choose(config) == "openvino":
        try:
            return "openvino", openvino.choose_precision(config.precision)
        except ImportError:
            if config.backend == "openvino":
                raise
    from geocd.predict.torch import choose_device, choose_precision

    return "torch", choose_precision(config.precision, choose_device(config.device))


def _choose(config: PredictConfig) -> BackendName:
    """The backend, torch or openvino, that the settings and the machine ask for."""
    if config.backend == "openvino":
        if config.device not in ("auto", "cpu"):
            raise ConfigError(
                f"OpenVINO runs on the CPU here, not on {config.device}; try --backend torch"
            )
        if config.compile:
            raise ConfigError("torch.compile and the backend openvino exclude each other")
        return "openvino"
    if config.backend == "torch" or config.compile or config.device in ("cuda", "mps"):
        return "torch"
    if config.device == "auto" and config.precision != "int8" and _may_have_gpu():
        from geocd.predict.torch import choose_device

        return "openvino" if choose_device("auto").type == "cpu" else "torch"
    return "openvino"


def _may_have_gpu() -> bool:
    """False where there is certainly no GPU that torch could use: asking torch takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if Path("/dev/kfd").exists():  # AMD
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _torch(weights: str, config: PredictConfig) -> Predictor:
    from geocd.models.checkpoint import load_weights
    from geocd.predict.torch import TorchPredictor

    return TorchPredictor(
        load_weights(weights), device=config.device, precision=config.precision,
        compiled=config.compile,
    )  # fmt: skip
