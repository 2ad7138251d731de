"""What a contestant reports: one record an update, wall clock to wall clock, and one line of JSON at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import MALLOC, Contestant, run_once
from benchmarks.timing import UpdateClock, print_run
from benchmarks.workload import Workload


def test_updates_end_at_the_logs_that_have_phases(capsys: pytest.CaptureFixture[str]) -> None:
    clock = UpdateClock(lambda logs: {"generate": logs["seconds"]} if "seconds" in logs else None)
    clock.on_train_begin(None, None, None)
    for logs in ({"seconds": 1.0}, {"train_runtime": 9.0}, {"seconds": 2.0}, None):
        clock.on_log(None, None, None, logs=logs)
    assert [update["generate"] for update in clock.updates] == [1.0, 2.0]
    assert all(update["seconds"] >= 0 and update["rss_mib"] > 1 for update in clock.updates)
    print_run(clock, "no")
    run = json.loads(capsys.readouterr().out)
    assert run["updates"] == clock.updates
    assert run["peak_rss_mib"] > 0.9 * clock.updates[0]["rss_mib"]  # the kernel counts both roughly
    assert {"torch", "transformers", "trl"} <= set(run["versions"])


def test_a_run_is_the_last_line_of_a_process_with_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = (
        "import json, os\nprint('noise')\nprint(json.dumps({'malloc': sorted(n for n in os.environ if 'MALLOC' in n)}))"
    )
    (tmp_path / "told.py").write_text(module, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    plain = run_once(Contestant("trl", "", "told"), Workload(), tmp_path, sys.executable)
    assert (plain["contestant"], plain["malloc"]) == ("trl", [])
    tuned = Contestant("trl_tuned", "", "told", environment=MALLOC)
    assert run_once(tuned, Workload(), tmp_path, sys.executable)["malloc"] == sorted(MALLOC)


def test_a_failed_contestant_stops_the_benchmark_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="(?s)ended with status 1.*No module named"):
        run_once(Contestant("trl", "", "no_such_module"), Workload(), tmp_path, sys.executable)
