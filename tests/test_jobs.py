"""The frame of a stage: what makes two jobs the same, what is answered already, and what a killed one leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rlhf_pipeline.artifacts import Store
from rlhf_pipeline.config import Setting
from rlhf_pipeline.errors import ArtifactError, ConfigError, LaunchError, StorageError
from rlhf_pipeline.jobs import (
    DONE,
    KEY_VERSION,
    Job,
    StageSettings,
    asks_for_help,
    hub_revision,
    is_main_process,
    need_data,
    say,
)

Model = dict[str, str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "artifacts")


def make_job(
    store: Store, asked: dict[str, Any] | None = None, *, data: str = "sha256:1", stage: str = "sft", **own: Any
) -> Job:
    settings = {name: Setting(name, value, f"--{name}") for name, value in (asked or {}).items()}
    return Job(stage, store, StageSettings(**own), settings, {}, {"rows": data})


def publish(job: Job, *roles: str, text: str = "weights", **also: Any) -> dict[str, str]:
    """Work as a stage does: one folder for each role, with one file in it."""
    with job.working(), job.store.staging() as staged:
        for role in roles:
            (staged / role).mkdir()
            (staged / role / "config.json").write_text(json.dumps({"text": text, "role": role}))
        return job.publish({role: staged / role for role in roles}, config={}, metrics={"loss": 1.0}, **also)


class TestKey:
    """The same key if and only if the result is the same."""

    @pytest.mark.parametrize(
        "asked",
        [
            {"logging_steps": 5},
            {"report_to": "wandb"},
            {"save_total_limit": 9},
            {"run_name": "x"},
            {"ddp_timeout": 60},
            {"model_revision": "main"},
            {"data": "elsewhere.jsonl"},
            {"base": "./the/same"},
        ],
    )
    def test_what_does_not_change_the_result(self, store: Store, asked: dict[str, Any]) -> None:
        assert make_job(store, asked).key == make_job(store).key

    @pytest.mark.parametrize("asked", [{"learning_rate": 1e-5}, {"seed": 1}, {"max_steps": 3}, {"dtype": "bfloat16"}])
    def test_what_changes_it(self, store: Store, asked: dict[str, Any]) -> None:
        assert make_job(store, asked).key != make_job(store).key

    def test_two_ways_of_writing_one_value(self, store: Store) -> None:
        assert make_job(store, {"learning_rate": "1e-5"}).key == make_job(store, {"learning_rate": 0.00001}).key

    def test_data_parents_and_stage(self, store: Store) -> None:
        job, settings = make_job(store), StageSettings()
        others = [
            make_job(store, data="sha256:2"),
            make_job(store, stage="reward"),
            Job("sft", store, settings, {}, {"base": "base-0123456789ab"}, {"rows": "sha256:1"}),
        ]
        assert len({job.key, *(other.key for other in others)}) == 4

    def test_own_settings_count_also_where_they_are_defaults(self, store: Store) -> None:
        assert make_job(store, run="other", force=True, keep_checkpoints=True).key == make_job(store).key
        assert make_job(store, eval_fraction=0.5).key != make_job(store).key
        assert make_job(store, on_long_row="skip").key != make_job(store).key
        assert make_job(store, {"eval_fraction": 0.05}).key == make_job(store).key

    def test_file_counts_by_what_is_in_it(self, store: Store, tmp_path: Path) -> None:
        one, two = tmp_path / "one.jinja", tmp_path / "two.jinja"
        one.write_text("a")
        two.write_text("a")
        before = make_job(store, {"chat_template_path": str(one)}).key
        assert make_job(store, {"chat_template_path": str(two)}).key == before
        one.write_text("b")
        assert make_job(store, {"chat_template_path": str(one)}).key != before

    def test_processes_make_batches_larger(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = make_job(store).key
        monkeypatch.setenv("WORLD_SIZE", "1")
        assert make_job(store).key == alone
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert make_job(store).key != alone


class TestAnswered:
    """A question that was answered is not asked again."""

    def test_second_time(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert not make_job(store).answered("sft")
        ids = publish(make_job(store), "sft")
        assert make_job(store).answered("sft")
        assert (
            f"sft: already answered by {ids['sft']} (the same inputs; FORCE=1 trains again)" in capsys.readouterr().out
        )
        assert not make_job(store, force=True).answered("sft")

    def test_all_roles_are_needed(self, store: Store) -> None:
        publish(make_job(store, stage="ppo"), "policy")
        assert make_job(store, stage="ppo").answered("policy")
        assert not make_job(store, stage="ppo").answered("policy", "critic")

    def test_process_that_died_before_the_refs_moved(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Publishing is done, the refs are not: the same command moves them, the base's too."""
        base = publish(make_job(store, stage="pretrain"), "base", text="base")["base"]

        def die(self: Store, run: str, ids: Model) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Store, "set_refs", die)
            with pytest.raises(KeyboardInterrupt):
                publish(make_job(store, run="mine"), "sft", also_refs={"base": base})
        assert store.ref("mine", "sft") is None
        assert make_job(store, run="mine").answered("sft", also_refs={"base": base})
        assert store.refs()["mine"] == {"base": base, "sft": store.ref("mine", "sft")}

    def test_other_run_gets_the_answer(self, store: Store) -> None:
        ids = publish(make_job(store), "sft")
        assert make_job(store, run="other").answered("sft", also_refs={"base": f"hub:owner/name@{'0' * 40}"})
        assert store.refs()["other"] == {"base": f"hub:owner/name@{'0' * 40}", "sft": ids["sft"]}

    def test_damaged_answer_is_none(self, store: Store) -> None:
        name = publish(make_job(store), "sft")["sft"]
        file = store.path(name) / "config.json"
        file.chmod(0o644)
        os.truncate(file, 3)
        assert not make_job(store).answered("sft")
        assert publish(make_job(store), "sft")["sft"] == name
        assert make_job(store).answered("sft")

    def test_says_what_differs_from_the_run(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        name = publish(make_job(store, {"seed": 1}), "sft")["sft"]
        capsys.readouterr()
        assert not make_job(store, {"seed": 2}, data="sha256:2").answered("sft")
        assert capsys.readouterr().out == f"sft: not the inputs of {name}: seed 1 -> 2; rows 'sha256:1' -> 'sha256:2'\n"

    def test_says_that_a_key_of_an_earlier_version_differs(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("rlhf_pipeline.jobs.KEY_VERSION", 1)
            name = publish(make_job(store), "sft")["sft"]
        capsys.readouterr()
        assert not make_job(store).answered("sft")
        assert capsys.readouterr().out == f"sft: not the inputs of {name}: version of the key 1 -> {KEY_VERSION}\n"

    def test_only_rank_0_moves_refs(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        publish(make_job(store), "sft")
        monkeypatch.setenv("RANK", "1")
        assert make_job(store, run="other").answered("sft")
        assert store.ref("other", "sft") is None


class TestWorking:
    """A working folder belongs to one key, and to one process."""

    def test_nothing_is_written_before(self, store: Store) -> None:
        make_job(store).answered("sft")
        assert not store.root.exists()

    def test_killed_job_goes_on_in_its_folder(self, store: Store) -> None:
        with pytest.raises(KeyboardInterrupt), make_job(store).working() as job:
            job.checkpoints.mkdir()
            raise KeyboardInterrupt
        with make_job(store).working() as job:
            assert job.checkpoints.is_dir()
        with make_job(store, {"seed": 1}).working() as other:
            assert not other.checkpoints.exists()

    def test_force_starts_afresh_after_publishing_and_goes_on_after_a_kill(self, store: Store) -> None:
        publish(make_job(store, keep_checkpoints=True), "sft")
        with make_job(store, force=True).working() as job:
            assert not (job.directory / DONE).exists()
            job.checkpoints.mkdir()
        assert make_job(store).answered("sft")  # without force the old answer stands
        with make_job(store, force=True).working() as job:
            assert job.checkpoints.is_dir()

    def test_checkpoints_go_unless_they_are_asked_for(self, store: Store) -> None:
        for keep in (False, True):
            job = make_job(store, {"seed": int(keep)}, keep_checkpoints=keep)
            checkpoint, tracked = job.checkpoints / "checkpoint-3", job.checkpoints / "runs"
            checkpoint.mkdir(parents=True)
            tracked.mkdir()
            publish(job, "sft")
            assert checkpoint.exists() == keep
            assert tracked.exists()
            assert json.loads((job.directory / DONE).read_text()) == {"sft": store.ref("default", "sft")}

    def test_two_processes_on_one_stage(self, store: Store) -> None:
        with (
            make_job(store).working(),
            pytest.raises(ArtifactError, match=rf"already running as process {os.getpid()} .*another --run"),
            make_job(store, {"seed": 1}).working(),
        ):
            pass
        with make_job(store).working(), make_job(store, run="other").working():
            pass

    def test_other_ranks_hold_no_lock(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        with make_job(store).working():
            monkeypatch.setenv("RANK", "1")
            with make_job(store).working():
                pass

    def test_refusal_of_the_disk_names_the_folder(self, store: Store) -> None:
        message = r"runs/default/sft/\w+: cannot write: No space left.*rlhf artifacts gc"
        with pytest.raises(StorageError, match=message), make_job(store).working():
            raise OSError(28, "No space left on device")

    def test_rows_set_aside(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        with make_job(store).working() as job:
            job.set_aside("long_rows", [{"where": "x:1", "tokens": 9}, {"where": "é:2", "tokens": 8}])
            job.set_aside("bad_rows", [])
        lines = (job.directory / "long_rows.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["where"] for line in lines] == ["x:1", "é:2"]
        assert not (job.directory / "bad_rows.jsonl").exists()
        assert "sft: 2 rows set aside in" in capsys.readouterr().out


class TestSpace:
    """A checkpoint is three numbers a weight (itself and two moments), an object one; 4 bytes each."""

    def test_by_hand(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        monkeypatch.setattr(Store, "require_space", lambda self, size, what: asked.append(size))
        job = make_job(store)
        job.need_space(1000, 3)
        job.need_space(1000, 0)
        assert asked == [40_000, 4_000]
        job.checkpoints.mkdir(parents=True)
        (job.checkpoints / "optimizer.pt").write_bytes(bytes(10_000))
        job.need_space(1000, 3)
        assert asked[-1] == 30_000  # an earlier attempt holds a part of it already
        (job.checkpoints / "more").write_bytes(bytes(100_000))
        job.need_space(1000, 3)
        assert asked[-1] == 4_000

    def test_no_room(self, store: Store) -> None:
        with pytest.raises(StorageError, match="sft of 1000000000000.0 M trained parameters needs"):
            make_job(store).need_space(10**18, 1)
        assert not store.root.exists()


def test_publishing_moves_all_refs_and_records_the_question(store: Store) -> None:
    job = make_job(store, {"seed": 3}, stage="ppo")
    ids = publish(job, "policy", "critic")
    assert store.refs()["default"] == ids
    manifest = store.manifest(ids["critic"])
    assert (manifest.kind, manifest.input_key, manifest.data) == ("critic", job.key, {"rows": "sha256:1"})
    assert manifest.extra["inputs"]["settings"]["seed"] == 3
    assert manifest.metrics["loss"] == 1.0 and manifest.metrics["seconds"] >= 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0])
def test_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"`eval_fraction` must be at least 0 and below 1, not {fraction}"):
        StageSettings(eval_fraction=fraction)


def test_what_a_stage_needs() -> None:
    with pytest.raises(ConfigError, match="data: no rankings named; type `rlhf reward --data <file>`, or `make reward"):
        need_data("", "reward", "rankings")
    need_data("x.jsonl", "reward", "rankings")
    assert hub_revision({}) is None
    assert hub_revision({"model_revision": Setting("model_revision", "v1", "--model_revision")}) == "v1"


def test_help_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert not asks_for_help(["--run", "x"], "sft", "Doc.", "trl.SFTConfig", StageSettings)
    assert asks_for_help(["--run", "x", "-h"], "sft", "Doc.", "trl.SFTConfig", StageSettings)
    page = capsys.readouterr().out
    assert "usage: rlhf sft" in page and "--eval_fraction" in page and "every field of trl.SFTConfig" in page


def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    say("two")
    assert capsys.readouterr().out == "one\n"


def begun(job: Job) -> None:
    """Leave what a stage that was killed behind a checkpoint leaves."""
    with job.working():
        (job.checkpoints / "checkpoint-4").mkdir(parents=True)
        (job.checkpoints / "checkpoint-4" / "complete").touch()


class TestOtherProcesses:
    """A training that another number of processes began is not begun anew without a word."""

    @pytest.fixture
    def by_two(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> Job:
        monkeypatch.setenv("WORLD_SIZE", "2")
        job = make_job(store, {"per_device_train_batch_size": 4})
        begun(job)
        monkeypatch.setenv("WORLD_SIZE", "4")
        return job

    def test_is_refused_with_the_way_out(self, store: Store, by_two: Job) -> None:
        for batch in (4, 2):
            with pytest.raises(LaunchError, match="2 processes began this training, and this is 4.*NPROC=2"):
                make_job(store, {"per_device_train_batch_size": batch}).refuse_other_processes("complete")

    def test_another_training_may_begin(self, store: Store, by_two: Job) -> None:
        make_job(store, {"per_device_train_batch_size": 4, "seed": 1}).refuse_other_processes("complete")
        make_job(store, {"per_device_train_batch_size": 4}, data="sha256:2").refuse_other_processes("complete")

    def test_one_that_is_finished_or_has_no_checkpoint_does_not_count(self, store: Store, by_two: Job) -> None:
        now = make_job(store, {"per_device_train_batch_size": 4})
        (by_two.directory / DONE).write_text("{}")
        now.refuse_other_processes("complete")
        (by_two.directory / DONE).unlink()
        (by_two.checkpoints / "checkpoint-4" / "complete").unlink()
        now.refuse_other_processes("complete")

    def test_the_same_number_goes_on(self, store: Store, by_two: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        make_job(store, {"per_device_train_batch_size": 4}).refuse_other_processes("complete")
