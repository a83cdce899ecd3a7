"""Where the time of a run goes, stage by stage, in one thread or several."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Adds up the seconds of stages; stages that run in threads of their own may overlap."""

    wall: dict[str, float] = field(default_factory=dict)
    """Seconds between the begin and the end of a stage, waiting for a core included."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds for which the stage's own thread had a core; not those of a library's threads."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside towards a stage."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            with self._lock:
                self.wall[name] = self.wall.get(name, 0.0) + wall
                self.cpu[name] = self.cpu.get(name, 0.0) + cpu
