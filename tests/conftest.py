"""Where the real imagery is, and what is skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("GEOCD_DATA", ROOT.parent / "shared" / "data"))
REFERENCE = DATA.parent / "reference"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real imagery; the test is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real imagery in {DATA}; set GEOCD_DATA")
    return DATA


@pytest.fixture(scope="session")
def reference() -> Path:
    """Weights, inputs and outputs of the reference networks."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no parity fixtures in {REFERENCE}; set GEOCD_DATA")
    return REFERENCE
