"""The command: exit codes, streams and what each verb asks of the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from safetensors import SafetensorError

import exporters.errors
from compressor.cli import app
from compressor.errors import InputError, MachineError
from compressor.recipe import load_recipe

RECIPE = "model: {builder: 'some:where', input: [3, 8, 8]}\ndata: {source: digits}\ncompress: {target: {macs: 0.5}}\n"


class Outcome(SimpleNamespace):
    """Exit code and both streams of one command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run the command in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMPRESSOR_DEBUG", raising=False)

    def command(*args: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["compressor", *args])
        with pytest.raises(SystemExit) as end:
            app.main()
        streams = capsys.readouterr()
        return Outcome(code=end.value.code, out=streams.out, err=streams.err)

    return command


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Stands in for the pipeline: records the call, returns or raises what the test sets as `result`."""
    (tmp_path / "a.yaml").write_text(RECIPE)
    module = ModuleType("compressor.pipeline")
    module.calls, module.result = [], SimpleNamespace(accepted=True, to_json=lambda: '{"accepted": true}')

    def answer(*args: object, **kwargs: object) -> object:
        module.calls.append((args, kwargs))
        if isinstance(module.result, BaseException):
            raise module.result
        return module.result

    module.compress = module.inspect_recipe = module.check_run = answer
    monkeypatch.setitem(sys.modules, "compressor.pipeline", module)
    monkeypatch.setattr("compressor.report.writers.console.print_report", lambda report: print("the report"))
    return module


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=300)


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['compressor', '--help']\n"
        "from compressor.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "benchmark" in done.stdout


def test_the_module_runs_as_the_command() -> None:
    done = python("-m", "compressor", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("compressor ")


def test_a_bad_recipe_ends_with_2_and_one_message(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(RECIPE.replace("'some:where'", "nowhere"))
    for verb in ("run", "inspect"):
        done = python("-m", "compressor", verb, str(recipe))
        assert done.returncode == 2
        assert "model.builder" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize("verb", ["demo", "init", "run", "inspect", "benchmark", "check", "methods"])
def test_every_verb_has_help(command, verb: str) -> None:
    assert command(verb, "--help").code == 0


@pytest.mark.parametrize(
    "args", [["run"], ["nosuchverb"], ["run", "a.yaml", "--nosuch"], ["benchmark", "a", "--threads", "0"]]
)
def test_wrong_usage_ends_with_2(command, args: list[str]) -> None:
    assert command(*args).code == 2


@pytest.mark.parametrize(("accepted", "code"), [(True, 0), (False, 1)])
def test_the_verdict_is_the_exit_code(command, pipeline, accepted: bool, code: int) -> None:
    pipeline.result.accepted = accepted
    assert command("run", "a.yaml").code == code
    assert command("check", "runs/a").code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("wrong", where="file", cure="right"), 2),
        (MachineError("weak"), 3),
        (exporters.errors.InvalidModelError("not a model"), 2),
        (exporters.errors.ExportError("operator missing"), 2),
        (exporters.errors.ProviderUnavailableError("no cuda"), 3),
        (OSError(28, "No space left on device", "file"), 3),
        (OSError(27, "File too large", "file"), 3),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 3),
        (PermissionError(13, "Permission denied", "file"), 2),
        (RuntimeError("DataLoader worker (pid(s) 1175) exited unexpectedly"), 3),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "), 3),
    ],
)
def test_known_errors_end_with_their_code_and_no_traceback(command, pipeline, error: Exception, code: int) -> None:
    pipeline.result = error
    ended = command("run", "a.yaml")
    assert ended.code == code
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_message_names_place_and_cure(command, pipeline) -> None:
    pipeline.result = InputError("wrong", where="file", cure="right")
    assert command("run", "a.yaml").err == "error: file: wrong\n  cure: right\n"


def test_debug_shows_the_traceback(command, pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.result = InputError("wrong")
    assert "Traceback" in command("--debug", "run", "a.yaml").err
    monkeypatch.setenv("COMPRESSOR_DEBUG", "1")
    assert "Traceback" in command("run", "a.yaml").err


def test_a_bug_shows_its_traceback_and_ends_with_70(command, pipeline) -> None:
    pipeline.result = ZeroDivisionError("unforeseen")
    ended = command("run", "a.yaml")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "bug" in ended.err


def test_an_interruption_ends_with_130(command, pipeline) -> None:
    pipeline.result = KeyboardInterrupt()
    ended = command("run", "a.yaml")
    assert ended.code == 130
    assert "interrupted" in ended.err


def test_sigterm_is_an_interruption(command, pipeline) -> None:
    former = signal.getsignal(signal.SIGTERM)
    pipeline.compress = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM)
    ended = command("run", "a.yaml")
    signal.signal(signal.SIGTERM, former)
    assert ended.code == 130
    assert "run the same command again to resume" in ended.err


def test_run_passes_everything_on(command, pipeline, tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    sets = ("--set", "seed=1", "--set", "data.root=x")
    command("run", str(recipe), *sets, "--fresh", "--baseline", "b.json", "--tensorboard", "--json")
    options = {"out": Path("runs/a"), "overrides": ["seed=1", "data.root=x"], "fresh": True, "baseline": Path("b.json")}
    options |= {"tensorboard": True, "events": True}
    assert pipeline.calls == [((recipe,), options)]


@pytest.mark.parametrize(
    ("args", "fresh"),
    [
        (["a.yaml"], False),
        (["a.yaml", "--fresh"], True),
        (["--fresh", "a.yaml"], True),
        (["--fresh", "plan", "a.yaml"], "plan"),
        (["a.yaml", "--fresh", "plan", "--json"], "plan"),
        (["a.yaml", "--fresh=plan"], "plan"),
    ],
)
def test_fresh_stands_alone_or_names_a_stage(command, pipeline, args: list[str], fresh: bool | str) -> None:
    assert command("run", *args).code == 0
    assert pipeline.calls[0][1]["fresh"] == fresh


def test_an_unknown_stage_is_named_with_the_nearest_one(command, pipeline) -> None:
    ended = command("run", "--fresh", "plam", "a.yaml")
    assert (ended.code, pipeline.calls) == (2, [])
    assert "'plam' is not known" in ended.err and "did you mean 'plan'" in ended.err


def test_run_prints_nothing_but_json(command, pipeline) -> None:
    assert json.loads(command("run", "a.yaml", "--json").out) == {"accepted": True}


def test_run_ends_with_an_event_where_events_are_told(command, pipeline) -> None:
    pipeline.result = InputError("wrong", where="file")
    ended = command("run", "a.yaml", "--json")
    event = json.loads(ended.err)
    assert (ended.code, ended.out) == (2, "")
    assert (event["event"], event["text"], event["exit_code"]) == ("end", "error: file: wrong", 2)


def test_check_passes_new_rules_on(command, pipeline) -> None:
    command("check", "runs/a", "--set", "accept.speedup=1.8")
    assert pipeline.calls == [((Path("runs/a"), ["accept.speedup=1.8"], None), {})]


def test_inspect_prints_nothing_but_json(command, pipeline) -> None:
    pipeline.result = SimpleNamespace(to_dict=lambda: {"groups": []})
    assert json.loads(command("inspect", "a.yaml", "--json").out) == {"groups": []}


LATENCY = SimpleNamespace(
    p50_ms=2.0, p90_ms=3.0, p99_ms=4.0, samples=50, throughput=500.0, session_ms=9.0, peak_bytes=20_000_000
)
INTERVAL = SimpleNamespace(median=1.5, low=1.4, high=1.6)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Stands in for the measurement; the calls are recorded."""
    calls: list[dict] = []

    def benchmark(files: list[Path], **options: object) -> SimpleNamespace:
        calls.append({"files": files, **options})
        return SimpleNamespace(
            threads=options["threads"],
            batch=options["batch"],
            models={"a": LATENCY, "b": LATENCY},
            speedups={"b": INTERVAL},
            warnings=["noisy"],
            to_dict=lambda: {"speedup": vars(INTERVAL)},
        )

    monkeypatch.setattr(exporters, "benchmark", benchmark)
    return calls


def test_benchmark_prints_the_report_format(command, measured) -> None:
    ended = command("benchmark", "a.onnx", "b.onnx", "--threads", "2", "--batch", "8", "--json")
    assert json.loads(ended.out)["benchmarks"][0]["speedup"] == vars(INTERVAL)
    files = [Path("a.onnx"), Path("b.onnx")]
    assert measured == [{"files": files, "provider": "cpu", "threads": 2, "batch": 8, "min_seconds": 5.0}]


def test_benchmark_measures_every_setting(command, measured) -> None:
    command("benchmark", "a.onnx", "--threads", "1", "--threads", "2", "--batch", "1", "--batch", "8")
    assert [(call["threads"], call["batch"]) for call in measured] == [(1, 1), (1, 8), (2, 1), (2, 8)]


def test_benchmark_wants_files_or_samples(command) -> None:
    assert command("benchmark").code == 2


def test_benchmark_prints_a_row_per_file_and_warns_on_stderr(command, measured) -> None:
    ended = command("benchmark", "a.onnx", "b.onnx")
    assert "reference" in ended.out
    assert "1.500 (1.400 to 1.600)" in ended.out
    assert "noisy" not in ended.out
    assert "warning: noisy" in ended.err


def test_methods_are_listed(command) -> None:
    listed = json.loads(command("methods", "--json").out)
    assert all(set(method) == {"name", "summary", "options", "paper"} for method in listed)
    options = {method["name"]: method["options"] for method in listed}
    assert options["imitation"] == {"metric": "batch_norm"}
    assert options["dep_l0"] | {"order": "forward", "init": "open", "lambda": None} == options["dep_l0"]
    assert "lambda" not in options["dsc"]
    text = command("methods").out
    assert all(method["name"] in text for method in listed)


def test_methods_of_installed_packages_are_listed_and_broken_ones_told(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    entries = "[compressor.methods]\ntheirs = compressor.selection.methods.random:RandomOrder\ngone = nowhere:Gone\n"
    (tmp_path / "theirs-1.0.dist-info/entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    ended = command("methods", "--json")
    assert "theirs" in {method["name"] for method in json.loads(ended.out)}
    assert "warning: entry point gone:" in ended.err


def test_init_writes_a_recipe_that_loads(command, tmp_path: Path) -> None:
    assert command("init", "inception_v3", "--out", "new/r.yaml").code == 0
    recipe = load_recipe(tmp_path / "new/r.yaml")
    assert recipe.model.builder == "torchvision.models:inception_v3"
    assert recipe.model.input == (3, 299, 299)


def test_init_takes_a_file_relative_to_the_recipe(command, tmp_path: Path) -> None:
    (tmp_path / "my nets").mkdir()
    (tmp_path / "my nets" / "net.py").write_text("def build(): pass\n")
    assert command("init", "my nets/net.py:build", "--out", "cfg/r.yaml").code == 0
    assert load_recipe(tmp_path / "cfg/r.yaml").model.builder == f"{tmp_path}/my nets/net.py:build"


def test_init_names_what_the_file_offers(command, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from json import loads\n\ndef small(): pass\n\ndef large(): pass\n")
    ended = command("init", "nets.py:nope")
    assert ended.code == 2
    assert "'nets.py' has no 'nope'" in ended.err
    assert "it offers: large, small" in ended.err
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize("name", ["resnt50", "net.py", "a b:c", "mod:", "net.py:build", "no_module:build"])
def test_init_refuses_a_name_that_is_none(command, tmp_path: Path, name: str) -> None:
    ended = command("init", name)
    assert ended.code == 2
    assert "cure:" in ended.err
    assert not list(tmp_path.iterdir())


def test_init_names_the_nearest_model(command) -> None:
    assert "did you mean resnet50" in command("init", "resnt50").err


def test_init_keeps_an_existing_file_unless_forced(command, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    assert command("init", "collections:Counter").code == 2
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert command("init", "collections:Counter", "--force").code == 0
    assert load_recipe(tmp_path / "recipe.yaml").model.builder == "collections:Counter"
