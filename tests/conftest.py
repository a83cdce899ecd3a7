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


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where everything is said to be there (GEOCD_NO_SKIPS=1), a skip is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("GEOCD_NO_SKIPS") == "1" and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} tests were skipped, and GEOCD_NO_SKIPS=1", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
