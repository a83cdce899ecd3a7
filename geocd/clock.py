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


def profile_table(stages: Clock, inside: str, overlapping: Clock) -> str:
    """Where the time went, for people.

    Args:
        stages: that follow each other.
        inside: the one of them in which the others overlap.
        overlapping: those others; their shares may add up to more than that stage's.
    """
    total = sum(stages.wall.values()) or 1.0
    lines = [f"{'stage':<16} {'seconds':>8} {'share':>6} {'CPU s':>8}"]

    def _line(name: str, clock: Clock, stage: str) -> str:
        wall, cpu = clock.wall[stage], clock.cpu[stage]
        return f"{name:<16} {wall:>8.2f} {wall / total:>6.1%} {cpu:>8.2f}"

    for stage in stages.wall:
        lines.append(_line(stage, stages, stage))
        if stage == inside:
            lines += [_line(f"  {name}", overlapping, name) for name in overlapping.wall]
    lines.append(f"{'in all':<16} {total:>8.2f}")
    return "\n".join(lines)
