"""Which device to compute on."""

import torch


def pick_device(name: str | None = None) -> torch.device:
    """The named device, or else the first of CUDA, Apple's MPS and the CPU that this machine has.

    Raises:
        ValueError: for a device that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["cpu"] = True
    if name is None:
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    kind = str(name).split(":")[0]
    if not there.get(kind):
        usable = ", ".join(repr(k) for k, is_there in there.items() if is_there)
        raise ValueError(f"device = {name!r}: this machine has only {usable}.")
    return torch.device(name)
