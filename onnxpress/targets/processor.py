"""What this machine's processor has."""

import functools
from pathlib import Path

__all__ = ["processor_features"]


@functools.cache
def processor_features() -> frozenset[str]:
    """Flags of this machine's processor as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
