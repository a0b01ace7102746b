"""Finished stages of a run: each in a directory named after a hash of all that it depends on.

What a stage takes from earlier ones counts by its content: whatever they produce anew is followed by all that reads it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from compressor import __version__
from compressor.errors import InputError
from compressor.recipe.fresh import STAGES, repeated
from compressor.support import distributed
from compressor.support.files import sha256, write_atomically
from compressor.support.progress import Say

MANIFEST, UNFINISHED, PARTIAL = "stage.json", "unfinished", ".partial"


def key(depends_on: Mapping[str, Any]) -> str:
    """Return a hash of everything that a stage depends on: plain JSON values, and the contents of files."""
    text = json.dumps(depends_on, sort_keys=True, default=sha256)
    return hashlib.sha256(text.encode()).hexdigest()


class Stages:
    """The stages of one run directory. As a context manager it locks the directory.

    Args:
        run_dir: Made when missing.
        fresh: Forget earlier stages: all, or those from the named one on.
        say: Told which stage begins and which is done already.

    Attributes:
        repeated: Names of the stages that are forgotten.

    Raises:
        InputError: there is no stage of that name; on entry, when the directory cannot be written or another run uses
            it.
    """

    def __init__(self, run_dir: Path, *, fresh: bool | str = False, say: Say = lambda text, **values: None) -> None:
        self.run_dir, self.repeated, self.say = run_dir, repeated(fresh), say
        self.root = run_dir / "stages"
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Stages:
        distributed.lead(self._open)
        return self

    def _open(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.run_dir / ".lock").open("w")
        except OSError as error:
            cure = "choose a directory that you may write to with --out"
            raise InputError(f"cannot write here ({error.strerror})", where=str(self.run_dir), cure=cure) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            cure = "wait for it to end, or choose another directory with --out"
            raise InputError("another run is using this directory", where=str(self.run_dir), cure=cure) from error
        self._forget()
        self._note_version()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if distributed.leads():
            self._lock.close()

    def _forget(self) -> None:
        everything = self.repeated == set(STAGES)
        for path in self.root.iterdir() if self.repeated else ():
            if everything or path.name.removesuffix(PARTIAL).rpartition("-")[0] in self.repeated:
                _remove(path)

    def _note_version(self) -> None:
        """Say it where another version has worked here: its stages depend on its number, and are not used."""
        note = self.run_dir / ".version"
        former = note.read_bytes().decode(errors="replace") if note.exists() else None
        if former not in (None, __version__):
            self.say(f"{self.run_dir} was written by compressor {former}; {__version__} recomputes every stage")
        write_atomically(note, __version__.encode())

    def run(
        self, name: str, depends_on: Mapping[str, Any], function: Callable[[Path], None], *, together: bool = False
    ) -> Path:
        """Do a stage unless it is done already.

        Args:
            name: Of the stage.
            depends_on: Plain JSON values, and paths of files of earlier stages, whose contents count.
            function: Writes its files into the directory that it is given. What it keeps in the folder `unfinished`
                there survives an interruption; everything else is removed before the stage is begun again.
            together: All processes of the run call `function`, those that do not lead with a directory that is thrown
                away; otherwise they wait.

        Returns:
            The stage's directory, complete and undamaged.
        """
        done, missing = distributed.lead(lambda: self._find(name, depends_on))
        partial = _partial(done)
        if missing:
            distributed.lead(lambda: self._begin(name, partial))
            started = time.perf_counter()
            if not together:
                distributed.lead(lambda: function(partial))
            elif distributed.leads():
                function(partial)
            else:
                with TemporaryDirectory() as directory:
                    function(Path(directory))
            distributed.lead(lambda: self._end(name, partial, started))
        self.seconds[name] = distributed.lead(lambda: _finish(done))
        return done

    def _find(self, name: str, depends_on: Mapping[str, Any]) -> tuple[Path, bool]:
        """The stage's directory, and whether its work has still to be done."""
        done = self._place(name, depends_on)
        if _intact(done):
            self.say(f"{name}: done already", event="stage", stage=name, state="done already")
            return done, False
        return done, not _intact(_partial(done))

    def _place(self, name: str, depends_on: Mapping[str, Any]) -> Path:
        return self.root / f"{name}-{key({'stage': name, **depends_on})[:12]}"

    def _begin(self, name: str, partial: Path) -> None:
        self.say(f"{name}: begins", event="stage", stage=name, state="begins")
        partial.mkdir(exist_ok=True)
        for left in partial.iterdir():
            if left.name != UNFINISHED:
                _remove(left)

    def _end(self, name: str, partial: Path, started: float) -> None:
        seconds = time.perf_counter() - started
        _seal(partial, seconds)
        self.say(f"{name}: done in {seconds:.1f} s", event="stage", stage=name, state="done", seconds=seconds)


class Rehearsal(Stages):
    """Finds out what a run would do, and does nothing.

    Args:
        stages: Of the run, which are looked at only.

    Attributes:
        missing: The stages in their order, and whether each has still to be done.
    """

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages.run_dir)
        self.missing: dict[str, bool] = {}

    def run(
        self, name: str, depends_on: Mapping[str, Any], function: Callable[[Path], None], *, together: bool = False
    ) -> Path:
        """The stage's directory; where it, or anything that it depends on, is missing, a path where nothing is."""
        try:
            done = self._place(name, depends_on)
        except FileNotFoundError:
            done = self.root / name
        self.missing[name] = not (done / MANIFEST).is_file()
        return done


def produced(stage: Path) -> list[Path]:
    """Return the files that a finished stage has left."""
    return sorted(path for path in stage.glob("*") if path.name not in (MANIFEST, UNFINISHED))


def _partial(done: Path) -> Path:
    return done.with_name(f"{done.name}{PARTIAL}")


def _finish(done: Path) -> float:
    """Give a stage whose work is done its name; returns the seconds that it took."""
    if not _intact(done):
        _remove(done)
        os.replace(_partial(done), done)
    _remove(done / UNFINISHED)
    return float(json.loads((done / MANIFEST).read_text())["seconds"])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(directory: Path) -> dict[str, str]:
    names = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    lasting = {name: path for name, path in names.items() if name.parts[0] not in (MANIFEST, UNFINISHED)}
    return {name.as_posix(): sha256(lasting[name]) for name in sorted(lasting)}


def _seal(directory: Path, seconds: float) -> None:
    manifest = {"seconds": round(seconds, 3), "files": _files(directory)}
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=2).encode())


def _intact(directory: Path) -> bool:
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return False
    try:
        read = json.loads(manifest.read_text())
        files, _ = read["files"], float(read["seconds"])
    except (ValueError, KeyError, TypeError):
        return False
    return bool(files == _files(directory))
