"""Interrupted fine-tuning goes on after its last finished epoch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator

from compressor.errors import InputError
from compressor.training.history import Epoch, History


@dataclass(frozen=True)
class Checkpoints:
    """Keeps the newest state (weights, optimiser, random states, history) as a folder `epoch-N`.

    Attributes:
        directory: Where the folder lies; belongs to one fine-tuning.
        identity: What the result depends on, JSON values; a state made with another one is refused.
    """

    directory: Path
    identity: Mapping[str, object]

    def save(self, accelerator: Accelerator, history: History) -> None:
        """Write the state after `history[-1]`, under a temporary name first, then remove the older one."""
        writing = self.directory / "writing"
        if accelerator.is_main_process:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(writing))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            record = {"identity": self.identity, "history": [asdict(epoch) for epoch in history]}
            (writing / "history.json").write_text(json.dumps(record))
            older = self._finished()
            os.replace(writing, self.directory / f"epoch-{len(history)}")
            for folder in older:
                shutil.rmtree(folder)
        accelerator.wait_for_everyone()

    def restore(self, accelerator: Accelerator) -> History:
        """Load the newest state into what `accelerator` has prepared.

        Returns:
            The finished epochs; empty, and nothing changed, where no state was saved.

        Raises:
            InputError: The state belongs to another fine-tuning.
        """
        finished = self._finished()
        if not finished:
            return []
        record = json.loads((finished[-1] / "history.json").read_text())
        if record["identity"] != self.identity:
            raise InputError(
                "holds a fine-tuning with other settings",
                where=str(self.directory),
                cure="remove the directory to start again, or use the settings it was begun with",
            )
        accelerator.load_state(str(finished[-1]))
        return [Epoch(**epoch) for epoch in record["history"]]

    def _finished(self) -> list[Path]:
        return sorted(self.directory.glob("epoch-*"), key=lambda folder: int(folder.name.partition("-")[2]))
