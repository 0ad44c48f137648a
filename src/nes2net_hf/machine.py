"""What this machine gives to this process."""

from __future__ import annotations

import os


def cores() -> int:
    """Returns how many cores this process may use: a cluster or taskset may limit it to a part of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
