"""The samples for CI servers: what the job's script does with the command's exit code, results and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

CI = Path(__file__).parents[1] / "samples" / "ci"
COMMAND = """#!/usr/bin/env bash
printf '%s\\n' "$@" > arguments
mkdir -p runs/ci
trap 'echo saved > saved; exit 130' TERM
touch started
if [ "$MODE" = wait ]; then while :; do sleep 0.05; done; fi
if [ "$MODE" = bad ]; then exit 2; fi
echo "# the summary" > runs/ci/summary.md
exit "$MODE"
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job, in which `compressor` only pretends to work."""
    command = tmp_path / "bin" / "compressor"
    command.parent.mkdir()
    command.write_text(COMMAND)
    command.chmod(0o755)
    return {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "RECIPE": "my recipe.yaml",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step"),
    }


def start(job: dict[str, str], directory: Path, *args: str, **changes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([CI / "compress.sh", *args], cwd=directory, env=job | changes)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_verdict_is_the_jobs(job: dict[str, str], tmp_path: Path, code: int) -> None:
    assert start(job, tmp_path, MODE=str(code)).wait(30) == code
    assert (tmp_path / "step").read_text() == "# the summary\n"


def test_a_job_without_a_verdict_says_so(job: dict[str, str], tmp_path: Path) -> None:
    assert start(job, tmp_path, MODE="bad").wait(30) == 2
    assert "exit code 2" in (tmp_path / "step").read_text()
    suite = ElementTree.parse(tmp_path / "runs/ci/junit.xml").getroot().find("testsuite")
    assert suite is not None and suite.get("errors") == "1"


def test_a_baseline_among_the_results_is_refused_before_they_go(job: dict[str, str], tmp_path: Path) -> None:
    kept = tmp_path / "runs" / "ci" / "report.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert start(job, tmp_path, MODE="0", BASELINE="runs/ci/report.json").wait(30) == 2
    assert kept.exists()


def test_everything_is_handed_on(job: dict[str, str], tmp_path: Path) -> None:
    assert start(job, tmp_path, "--set", "seed=1", MODE="0", BASELINE="old report.json").wait(30) == 0
    expected = ["run", "my recipe.yaml", "--out", "runs/ci", "--set", "seed=1", "--baseline", "old report.json"]
    assert (tmp_path / "arguments").read_text().splitlines() == expected


def test_results_of_an_earlier_job_do_not_speak_for_one_that_fails(job: dict[str, str], tmp_path: Path) -> None:
    old = [tmp_path / "runs/ci" / name for name in ("report.json", "junit.xml", "report.html", "compact.onnx")]
    old[0].parent.mkdir(parents=True)
    for path in old:
        path.touch()
    start(job, tmp_path, MODE="2").wait(30)
    assert not any(path.exists() for path in old)


def test_a_job_that_is_ended_lets_the_run_save_its_state(job: dict[str, str], tmp_path: Path) -> None:
    process = start(job, tmp_path, MODE="wait")
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert (tmp_path / "saved").exists()


def test_without_a_recipe_nothing_is_run(job: dict[str, str], tmp_path: Path) -> None:
    assert start(job, tmp_path, MODE="0", RECIPE="").wait(30) != 0
    assert not (tmp_path / "arguments").exists()


def test_the_samples_keep_what_a_run_writes() -> None:
    action = yaml.safe_load((CI / "action.yml").read_text())
    gitlab = yaml.safe_load((CI / "gitlab-ci.yml").read_text())["compress"]
    kept = action["runs"]["steps"][-1]["with"]["path"].replace("${{ inputs.out }}/", "").split()
    assert {"report.html", "report.json", "junit.xml", "compact.onnx"} <= set(kept)
    assert gitlab["artifacts"]["reports"]["junit"] == "runs/ci/junit.xml"
    assert {f"runs/ci/{name}" for name in kept} - set(gitlab["artifacts"]["paths"]) == {"runs/ci/junit.xml"}
