"""What a run tells people and programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from compressor.support import progress as journal_module
from compressor.support.progress import Journal


class Clock:
    """Ten seconds pass at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal_module, "time", clock)
    return clock


def advance(journal: Journal, steps: int = 9) -> None:
    with journal.bar("select (imitation)") as advance:
        for done in range(1, steps + 1):
            advance(done, steps, f"loss {done}", loss=0.5)


def test_what_is_said_is_in_the_log_with_the_time_and_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(tmp_path / "log.txt").say("[bold] plan: done", event="stage", stage="plan")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ \[bold\] plan: done\n", (tmp_path / "log.txt").read_text())
    assert capsys.readouterr() == ("", "[bold] plan: done\n")


def test_without_a_terminal_a_line_now_and_then_says_how_long_it_will_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advance(Journal(tmp_path / "log.txt"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "select (imitation): 22%, 1:10 left, loss 2"
    assert len(lines) == 4, "at most one in 15 seconds: every other step of ten"
    assert [line.partition(" ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == lines


def test_a_quick_task_needs_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    clock.monotonic = lambda: 0.0  # type: ignore[method-assign]
    advance(Journal(tmp_path / "log.txt"))
    assert capsys.readouterr().err == ""


def test_the_time_left_counts_from_where_an_interrupted_task_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path / "log.txt").bar("finetune") as advance:
        advance(500, 1000)
        advance(501, 1000)
    assert capsys.readouterr().err == "finetune: 50%, 83:10 left\n"


def test_the_share_that_is_shown_never_falls_where_the_total_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    totals = [10] * 10 + [20] * 10 + [40] * 20
    with Journal(tmp_path / "log.txt").bar("profile") as advance:
        for done, total in enumerate(totals, start=1):
            advance(done, total)
    shares = [int(share) for share in re.findall(r"profile: (\d+)%", capsys.readouterr().err)]
    assert len(shares) == 20 and shares == sorted(shares)
    assert shares[-1] == 99, "whether the total still grows is not known"


def test_a_total_that_grows_on_the_way_slows_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path / "log.txt").bar("plan") as advance:
        advance(2, 4)
        advance(3, 6)
        advance(4, 6)
    assert re.findall(r"\d+%", capsys.readouterr().err) == ["62%"], "half, then a quarter of the other half"


def test_the_time_before_the_first_step_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a task that prepares itself for long says that nothing is left."""
    with Journal(tmp_path / "log.txt").bar("select") as advance:
        journal_module.time.now += 100  # type: ignore[attr-defined]
        advance(1, 4)
    assert capsys.readouterr().err == "select: 25%, 5:30 left\n"


def test_events_are_objects_on_lines_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "log.txt", events=True)
    journal.say("plan: done in 2.0 s", event="stage", stage="plan", state="done", seconds=2.0)
    journal.say("plain words")
    advance(journal, 2)
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert all(event.pop("time") for event in events)
    assert events == [
        {"event": "stage", "text": "plan: done in 2.0 s", "stage": "plan", "state": "done", "seconds": 2.0},
        {"event": "message", "text": "plain words"},
        {
            **{"event": "progress", "task": "select (imitation)", "done": 1, "total": 2, "share": 0.5},
            **{"seconds": 10.0, "seconds_left": 10.0, "loss": 0.5},
        },
        {
            **{"event": "progress", "task": "select (imitation)", "done": 2, "total": 2, "share": 0.99},
            **{"seconds": 20.0, "seconds_left": 0.0, "loss": 0.5},
        },
    ]
    assert "plain words" in (tmp_path / "log.txt").read_text()


def test_a_listener_hears_every_step(tmp_path: Path) -> None:
    heard: list[tuple[str, int, dict[str, float]]] = []
    journal = Journal(tmp_path / "log.txt")
    journal.listener = lambda *told: heard.append(told)
    advance(journal, 3)
    assert heard == [("select (imitation)", done, {"loss": 0.5}) for done in (1, 2, 3)]


def test_a_quiet_journal_tells_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "log.txt", quiet=True)
    journal.listener = lambda *told: pytest.fail("told")
    journal.say("something")
    advance(journal)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "log.txt").exists()
