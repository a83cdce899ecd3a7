"""OpenVINO as a library that keeps to itself.

OpenVINO reports its imports and conversions to its maker over the network, and puts files into
the home folder for it, where the package ``openvino-telemetry`` can be imported. Where that is
missing it does neither; so it is missing while geocd imports OpenVINO, in this process alone.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_REPORTER = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"
_lock = threading.Lock()


@contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """Imports of these modules fail meanwhile, as if they were not installed."""
    with _lock:
        hidden = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
        for name in modules:
            sys.modules[name] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            for name in modules:
                del sys.modules[name]
            sys.modules.update(hidden)


def openvino() -> Any:
    """OpenVINO's runtime; its converter, half of the time that the import takes, stays away.

    Raises:
        ImportError: OpenVINO is not installed, or its libraries do not load.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    with _absent(_REPORTER, _CONVERTER):
        return importlib.import_module("openvino")


def converter() -> Callable[..., Any]:
    """``openvino.convert_model``; takes torch modules.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    openvino()
    with _absent(_REPORTER):
        convert: Callable[..., Any] = importlib.import_module(_CONVERTER).convert_model
    return convert


def nncf() -> Any:
    """NNCF, which quantises and would report its use too.

    Raises:
        ImportError: NNCF is not installed.
    """
    openvino()
    with _absent(_REPORTER):
        return importlib.import_module("nncf")
