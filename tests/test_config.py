"""Settings: three sources, one typed dataclass, and an error with a place for everything that does not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rlhf_pipeline import config
from rlhf_pipeline.config import Setting, command_settings, given, help_text, names, read_settings, refuse_unknown, take
from rlhf_pipeline.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Penalty:
    """Settings used by these tests."""

    kl_coef: float = field(default=0.05, metadata={"help": "Weight of the KL penalty."})
    kl_control: Literal["fixed", "adaptive"] = "fixed"
    whiten: bool = False
    max_length: int | None = 128
    save_strategy: str = "steps"
    layers: list[str] | None = None
    options: dict[str, float] | str | None = None

    def __post_init__(self) -> None:
        if self.kl_coef < 0:
            raise ConfigError("`kl_coef` must not be negative; 0 turns the penalty off")
        if self.max_length == 7:
            raise ValueError("no good length\nat all: max_length")
        if self.max_length == 8:
            raise ModelError("eight")


def recipe(folder: Path, text: str) -> str:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return str(file)


def test_three_sources_in_order(tmp_path: Path) -> None:
    file = recipe(tmp_path, "# head\nkl_coef: 1e-3\nwhiten: true\nkl-control: adaptive\n")
    settings = read_settings(["--config", file, "--kl_coef", "2e-3"])
    assert take(Penalty, settings) == Penalty(kl_coef=0.002, whiten=True, kl_control="adaptive")
    assert settings["whiten"].where == f"{file}:3"
    assert settings["kl_coef"].where == "--kl_coef"


def test_yaml_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    settings = read_settings([f"--config={recipe(tmp_path, 'kl_coef: 1e-5')}"])
    assert settings["kl_coef"].value == "1e-5"
    assert take(Penalty, settings).kl_coef == 1e-5


def test_command_line_forms() -> None:
    settings = read_settings(["--whiten", "--max-length=5", "--layers", "q", "v", "--kl_coef", "-1.5"])
    assert [setting.value for setting in settings.values()] == [True, "5", ["q", "v"], "-1.5"]
    assert set(settings) == {"whiten", "max_length", "layers", "kl_coef"}


def test_empty_file_and_no_arguments(tmp_path: Path) -> None:
    assert read_settings(["--config", recipe(tmp_path, "# nothing\n")]) == {}
    assert take(Penalty, read_settings([])) == Penalty()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--whiten", "false"], Penalty(whiten=False)),
        (["--max_length", "null"], Penalty(max_length=None)),
        (["--layers", "q"], Penalty(layers=["q"])),
        (["--layers", '["q", "v"]'], Penalty(layers=["q", "v"])),
        (["--options", '{"a": 1}'], Penalty(options='{"a": 1}')),
        (["--kl_coef", "3"], Penalty(kl_coef=3.0)),
    ],
)
def test_words_become_the_type_of_the_field(argv: list[str], expected: Penalty) -> None:
    assert take(Penalty, read_settings(argv)) == expected


def test_json_becomes_a_dict_where_no_text_is_meant() -> None:
    @dataclass(frozen=True)
    class Only:
        options: dict[str, float] = field(default_factory=dict)

    assert take(Only, read_settings(["--options", '{"a": 1}'])).options == {"a": 1.0}
    with pytest.raises(ConfigError, match="--options: `options` is not JSON"):
        take(Only, read_settings(["--options", "{a"]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--kl_coef"], "--kl_coef: `kl_coef` needs a value (float)"),
        (["--kl_coef", "much"], "--kl_coef: `kl_coef` must be float, not 'much'"),
        (["--max_length", "1.5"], "--max_length: `max_length` must be int or null, not '1.5'"),
        (["--kl_control", "fixd"], "must be one of fixed, adaptive, not 'fixd'; did you mean `fixed`?"),
        (["--kl_coef", "-1"], "--kl_coef: `kl_coef` must not be negative"),
        (["--max_length", "7"], "--max_length: no good length at all: max_length"),
        (["--whiten", "a", "b"], "--whiten: `whiten` must be bool, not ['a', 'b']"),
    ],
)
def test_refused_values_name_their_place(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        take(Penalty, read_settings(argv))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_that_quotes_only_the_value_gets_its_place() -> None:
    @dataclass(frozen=True)
    class Strategy:
        save_strategy: str = "no"

        def __post_init__(self) -> None:
            raise ValueError(f"{self.save_strategy} is no strategy")

    with pytest.raises(ConfigError, match="^--save_strategy: sometimes is no strategy"):
        take(Strategy, read_settings(["--save_strategy", "sometimes"]))


def test_other_errors_of_the_class_pass_as_they_are() -> None:
    with pytest.raises(ModelError, match="^eight$"):
        take(Penalty, read_settings(["--max_length", "8"]))


def test_unquoted_no_is_refused_with_the_reason(tmp_path: Path) -> None:
    settings = read_settings(["--config", recipe(tmp_path, "save_strategy: no")])
    with pytest.raises(ConfigError, match="recipe.yaml:1: `save_strategy` is False to YAML .* quotes"):
        take(Penalty, settings)


def test_true_is_not_a_number(tmp_path: Path) -> None:
    settings = read_settings(["--config", recipe(tmp_path, "kl_coef: true")])
    with pytest.raises(ConfigError, match="recipe.yaml:1: `kl_coef` must be float, not True"):
        take(Penalty, settings)


def test_fixed_values_reach_the_class_and_cannot_be_given() -> None:
    assert take(Penalty, {}, kl_coef=0.5).kl_coef == 0.5
    with pytest.raises(ConfigError, match="--kl_coef: `kl_coef` is decided by the command itself"):
        take(Penalty, read_settings(["--kl_coef", "1"]), kl_coef=0.5)


def test_unknown_key_names_the_line_and_the_nearest(tmp_path: Path) -> None:
    file = recipe(tmp_path, "whiten: true\nkl_coeff: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        refuse_unknown(read_settings(["--config", file]), Penalty)
    assert str(caught.value) == f"{file}:2: `kl_coeff` is not a setting; did you mean `kl_coef`?"


def test_unknown_key_without_a_neighbour() -> None:
    settings = read_settings(["--zzz", "1", "--data", "x"])
    with pytest.raises(ConfigError, match="--zzz: `zzz` is not a setting; --help lists the settings"):
        refuse_unknown(settings, Penalty, extra_names={"data"})
    refuse_unknown({"data": settings["data"]}, Penalty, extra_names={"data"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\n", r"recipe.yaml:3: not YAML"),
        ("- a\n- b\n", r"recipe.yaml:1: expected `name: value` lines"),
        ("a: 1\na: 2\n", r"recipe.yaml:2: `a` was already given at .*recipe.yaml:1"),
        ("[a]: 1\n", r"recipe.yaml:1: a setting's name must be a word"),
        ("a: !!python/object/apply:os.system [ls]\n", r"recipe.yaml:1: not YAML: could not determine a constructor"),
        ("a: \x01\n", r"recipe.yaml: not YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(["--config", recipe(tmp_path, text)])


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config: no file .*absent.yaml"):
        read_settings(["--config", str(tmp_path / "absent.yaml")])
    (tmp_path / "latin").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="latin: not UTF-8"):
        read_settings(["--config", str(tmp_path / "latin")])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stray"], "`stray` belongs to no setting"),
        (["-x"], "`-x` belongs to no setting"),
        (["--a", "1", "--a", "2"], "--a: given twice"),
        (["--config"], "--config: needs exactly one file"),
        (["--config", "a", "b"], "--config: needs exactly one file"),
    ],
)
def test_bad_command_lines(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(argv)


def test_given_is_the_same_for_two_ways_of_writing(tmp_path: Path) -> None:
    file = recipe(tmp_path, "lr: 0.00001\nsteps: 20\nwhiten: yes\nlength: null\nparts: {b: 1.0, a: x}\n")
    in_yaml = given(read_settings(["--config", file]))
    typed = given(
        {
            name: Setting(name, value, "--")
            for name, value in [
                ("whiten", "True"),
                ("steps", "2e1"),
                ("lr", "1e-5"),
                ("parts", {"a": "x", "b": 1}),
                ("length", "null"),
            ]
        }
    )
    assert json.dumps(in_yaml) == json.dumps(typed)
    assert list(in_yaml) == sorted(in_yaml)


def test_given_keeps_names_that_look_like_numbers_apart() -> None:
    words = ["007", "7", "0" * 40, "1" * 39 + "1", "1" * 39 + "2", "1_0", "nan", "v1"]
    plain = [given({"x": Setting("x", word, "--x")})["x"] for word in words]
    assert len(set(map(str, plain))) == len(words)
    assert given(read_settings(["--a", "1", "--b", "2"]), without={"a"}) == {"b": 2}
    assert given({"x": Setting("x", Path("data/a.jsonl"), "--x")}) == {"x": "data/a.jsonl"}


def test_names_and_help_come_from_the_fields() -> None:
    assert "kl_coef" in names(Penalty)
    page = help_text("rlhf ppo", "Train with PPO.", Penalty, also="Every field of TRL's GRPOConfig is taken too.")
    assert page.startswith("usage: rlhf ppo [--config file.yaml]")
    assert "--kl_coef  float  (default: 0.05)\n      Weight of the KL penalty." in page
    assert "--kl_control  fixed|adaptive" in page
    assert "--layers  a list of str or null" in page
    assert page.endswith("taken too.\n")


def test_help_shows_required_and_factories() -> None:
    @dataclass(frozen=True)
    class Needs:
        base: str
        parts: list[str] = field(default_factory=lambda: ["a"])
        hidden: int = field(default=0, init=False)

    page = help_text("rlhf x", "X.", Needs)
    assert "--base  str  (required)" in page
    assert "--parts  a list of str  (default: ['a'])" in page
    assert "hidden" not in page
    assert config.type_text(type(None)) == "null"


def test_a_command_reads_its_settings_or_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    asked = command_settings(["adaptive", "--kl_coef", "0.1"], "rlhf x WORD", "Do it.", Penalty, first="kl_control")
    assert asked == Penalty(kl_coef=0.1, kl_control="adaptive")
    with pytest.raises(ConfigError, match="kl_coeff"):
        command_settings(["--kl_coeff", "0.1"], "rlhf x", "Do it.", Penalty)
    assert capsys.readouterr().out == ""
    assert command_settings(["adaptive", "-h"], "rlhf x", "Do it.", Penalty, also="and so on") is None
    shown = capsys.readouterr().out
    assert shown == help_text("rlhf x", "Do it.", Penalty, also="and so on")
