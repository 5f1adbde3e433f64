"""Which processor this is; the last bits of a result depend on it."""

import platform
from pathlib import Path


def processor() -> str:
    """As in "AMD EPYC, family 25, model 17": models of the same name may compute differently."""
    info = Path("/proc/cpuinfo")
    if not info.exists():  # macOS, Windows
        return platform.processor()
    lines = info.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    known = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    if "model name" not in known:  # Arm
        return platform.processor() or platform.machine()
    return f"{known['model name']}, family {known['cpu family']}, model {known['model']}"
