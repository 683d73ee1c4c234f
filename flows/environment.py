"""Prefect's settings for a machine without a network. They take effect only when set before prefect is imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """Where radaug keeps what belongs to no run: Prefect's database and logs of unexpected faults.

    The user's cache folder, or a temporary one where the home may not be written.
    """
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radaug"
    try:
        place.mkdir(parents=True, exist_ok=True)
        writable = os.access(place, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        return Path(tempfile.mkdtemp(prefix="radaug-"))
    return place


def set_prefect_environment() -> None:
    """Keep Prefect local, silent on the terminal and patient with a slow start. What the user has set stays."""
    for name, value in {
        "PREFECT_HOME": str(user_cache() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)
