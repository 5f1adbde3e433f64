"""One whole file per run: what it takes to continue after its last finished epoch."""

import hashlib
import tempfile
import zipfile
from pathlib import Path

import torch

from backstage.files import replacing


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message says which one and what to do."""


class Checkpoint:
    """The state of a run's parts and its history, in a file that is complete at any moment.

    Args:
        directory: of the file; created where it is missing.
        label: of the run, the start of the file's name.
        identity: what a file must agree with, to the letter, to be continued; plain values.
        parts: what has a ``state_dict``: the model, the optimizer and the scheduler.
    """

    VERSION = 2

    def __init__(self, directory: str | Path, label: str, identity: dict, parts: dict):
        self.label, self.parts = label, parts
        self.identity = {"version": self.VERSION, **identity}
        digest = hashlib.sha256(repr(self.identity).encode()).hexdigest()[:8]
        self.path = Path(directory) / f"{label.replace(' ', '')}-{digest}.pt"

    def load(self) -> list[dict]:
        """Brings the parts to where the file left them; gives the history, empty without a file."""
        self._check_directory()
        if not self.path.exists():
            return []
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not compare checksums
                damaged, cause = archive.testzip() is not None, None
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found = state["identity"]
        except Exception as error:  # zipfile and torch.load raise a dozen kinds between them
            damaged, cause = True, error
        if damaged:
            raise CheckpointError(
                f"{self.path} is damaged: move it away to train {self.label} from the start."
            ) from cause
        for key, value in self.identity.items():
            if found.get(key) != value:
                difference = _difference(found.get(key), value)
                raise CheckpointError(
                    f"{self.path} belongs to another {key} ({difference}): choose another "
                    f"directory, or move the file away."
                )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["history"]

    def save(self, history: list[dict]) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"identity": self.identity, "history": history}
        try:
            with replacing(self.path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.path} could not be written ({error}): make room, or choose another "
                f"directory. It still holds the epochs before; run again to continue."
            ) from error

    def _check_directory(self) -> None:
        """Fails before the first epoch is trained, not after it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path.parent).close()
        except OSError as error:
            raise CheckpointError(
                f"Checkpoints cannot be written to {self.path.parent} ({error.strerror}): choose "
                f"another directory."
            ) from error


def _difference(found, wanted) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
        return ", ".join(f"{k} {found.get(k)}, not {wanted.get(k)}" for k in keys)
    return f"{found}, not {wanted}"
