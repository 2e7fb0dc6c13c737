"""Methods composed of terms: the same from the command line, from YAML and from Python, and what they imply."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import unlabeled
from unlabeled import plugins
from unlabeled.cli.domain import pretrain_config
from unlabeled.cli.main import main
from unlabeled.compose import options_of, part_from
from unlabeled.config import config_from, method_data, method_from
from unlabeled.errors import UserError
from unlabeled.methods import METHODS, Method, Part, Views, use
from unlabeled.plugins import Registry, core
from unlabeled.terms.base import Term


def method(data: Any) -> Method:
    return method_from(data, core())[1]


# ---- parts


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("contrast", Part("contrast")),
        ("rebuild:weight=0.5,standardise=true", use("rebuild", 0.5, standardise=True)),
        ("random:ratio=0.6", use("random", ratio=0.6)),
        ("random:ratio=[0.1,0.5], samples=0.5", use("random", ratio=(0.1, 0.5), samples=0.5)),
        (
            "context_targets:scale=[0.1,0.2],context=[0.8,1.0]",
            use("context_targets", scale=(0.1, 0.2), context=(0.8, 1.0)),
        ),
        (
            "gram:weight={start: 0, end: 1, from: 0.1},layers=2",
            use("gram", {"start": 0, "end": 1, "from": 0.1}, layers=2),
        ),
        ("contrast:temperature=1e-1", use("contrast", temperature=0.1)),
        ("block:size=null,shape=block", use("block", size=None, shape="block")),
    ],
)
def test_a_part_from_text_is_that_from_a_mapping(text: str, part: Part) -> None:
    assert part_from(text) == part
    plain = {"name": part.name, **part.options, "weight": part.weight}
    assert part_from(plain) == part
    assert (
        part_from(yaml.safe_load(yaml.safe_dump({k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()})))
        == part
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("random:ratio", "name=value with commas between, and 'ratio'"),
        ("random:=1", "name=value"),
        ("random:", "name=value"),
        (":ratio=1", "a name or a mapping with one"),
        ({"weight": 1}, "a name or a mapping with one, not {'weight': 1}"),
        (7, "a name or a mapping with one, not 7"),
        ("contrast:weight=much", "contrast.weight is a number, not 'much'"),
        ({"name": "contrast", "weight": [1]}, "contrast.weight is a number"),
    ],
)
def test_what_is_no_part_is_refused(data: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        part_from(data)


def test_options_end_at_commas_outside_brackets() -> None:
    assert options_of("a={x: [1, 2], y: 3},b=[4,5],c=text") == {"a": {"x": [1, 2], "y": 3}, "b": (4, 5), "c": "text"}


# ---- what terms imply


@pytest.mark.parametrize(
    ("terms", "goal"),
    [
        (["contrast"], Method(Views(global_=2), (use("contrast"),))),
        (["rebuild"], Method(Views(plain=1), (use("rebuild"),), use("random"))),
        (["contrast", "rebuild"], Method(Views(global_=2), (use("contrast"), use("rebuild")), use("random"))),
        (["latent"], Method(Views(plain=1), (use("latent"),), use("random"), METHODS["ijepa"].teacher)),
        (["regress"], Method(Views(global_=2), (use("regress"),), teacher=METHODS["byol"].teacher)),
        (["infonce"], Method(Views(global_=2), (use("infonce"),), teacher=METHODS["moco_v2"].teacher)),
        (["moved"], Method(Views(plain=1), (use("moved"),), use("corrupt"))),
        (["moved", "rebuild"], Method(Views(plain=1), (use("moved"), use("rebuild")), use("corrupt"))),
        (["mixture"], Method(Views(plain=1), (use("mixture"),), use("mix"))),
    ],
)
def test_what_is_left_out_is_what_terms_need(terms: list[str], goal: Method) -> None:
    assert method({"terms": terms}) == goal


def test_a_term_of_no_row_gets_a_moving_average() -> None:
    class Own(Term):
        needs = frozenset({"tokens", "teacher"})

    registry = SimpleNamespace(terms={"own": Own}, masks=core().masks, methods=METHODS)
    assert method_from({"terms": ["own"]}, registry)[1].teacher == use("ema")


def test_what_is_said_is_not_inferred() -> None:
    said = {
        "terms": ["latent", "contrast"],
        "views": "plain=1,global=2",
        "hide": "block:ratio=0.6",
        "teacher": "stop_gradient",
    }
    goal = Method(
        Views(plain=1, global_=2), (use("latent"), use("contrast")), use("block", ratio=0.6), use("stop_gradient")
    )
    assert method(said) == goal
    assert method({**said, "views": {"plain": 1, "global": 2}, "hide": {"name": "block", "ratio": 0.6}}) == goal
    assert method({**said, "weights": "pareto", "keep": "teacher"}).weights == "pareto"


def test_a_term_is_added_to_a_row() -> None:
    name, row = method_from({"name": "dino", "add": ["vicreg:weight=0.1"]}, core())
    assert name == "dino+vicreg"
    assert row == METHODS["dino"].__class__(
        **{
            **{f: getattr(METHODS["dino"], f) for f in METHODS["dino"].__dataclass_fields__},
            "terms": (*METHODS["dino"].terms, use("vicreg", 0.1)),
        }
    )


def test_a_row_is_given_what_an_added_term_needs_and_it_lacks() -> None:
    row = method({"name": "simclr", "add": ["rebuild", "latent"]})
    assert (row.views, row.hide, row.teacher) == (Views(global_=2), use("random"), METHODS["ijepa"].teacher)
    kept = method({"name": "simmim", "add": ["latent"]})
    assert (kept.views, kept.hide, kept.teacher) == (
        METHODS["simmim"].views,
        METHODS["simmim"].hide,
        METHODS["ijepa"].teacher,
    )
    held = method({"name": "simsiam", "add": ["vicreg"]})
    assert held.teacher == use("stop_gradient")
    swav = method({"name": "swav", "add": ["vicreg"]})
    assert swav.teacher == METHODS["swav"].teacher, "a row that has a use for its teacher keeps it"


def test_choices_replace_those_of_a_row() -> None:
    row = method(
        {"name": "dino", "views": "global=2,local=4", "teacher": "ema:momentum=0.99", "set": {"ema.end": 0.99}}
    )
    assert row.views == Views(global_=2, local=4)
    assert row.teacher == use("ema", momentum=0.99, end=0.99)
    assert row.terms == METHODS["dino"].terms


@pytest.mark.parametrize("name", METHODS)
def test_a_method_spelt_out_is_itself(name: str) -> None:
    plain = yaml.safe_load(yaml.safe_dump({"name": name, **method_data(METHODS[name])}))
    again, row = method_from(plain, core())
    assert again == name
    assert method_data(row) == method_data(METHODS[name])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"terms": ["contrst"]}, "no term is called 'contrst'; did you mean contrast"),
        ({"terms": ["contrast"], "veiws": {}}, "a method has no 'veiws'; did you mean views"),
        ({"terms": ["contrast"], "views": "globl=2"}, "views has no 'globl'; did you mean global"),
        ({"terms": ["contrast"], "views": {"global": "two"}}, "views.global is a number, not 'two'"),
        ({"terms": ["contrast"], "weights": "parto"}, "no way to weigh terms is called 'parto'; did you mean pareto"),
        ({"terms": ["contrast"], "keep": "techer"}, "no branch is called 'techer'; did you mean teacher"),
        ({"name": "dinno", "add": ["vicreg"]}, "no method is called 'dinno'; did you mean dino"),
        ({"name": "dino", "add": ["vicrg"]}, "no term is called 'vicrg'; did you mean vicreg"),
        ({"terms": ["contrast"], "set": {"rebuild.weight": 1}}, "no part 'rebuild'"),
        ({}, "no method is called ''"),
    ],
)
def test_mistakes_are_named(data: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        method(data)


# ---- one method, three ways to write it


@pytest.fixture
def registry() -> Registry:
    return plugins.load("tabular")


def test_the_command_line_yaml_and_python_say_the_same(registry: Registry, tmp_path: Path) -> None:
    line = (
        "people.csv --term contrast --term rebuild:weight=0.5,standardise=true --hide random:ratio=0.6 "
        "--teacher ema:momentum=0.99 --views global=2,local=1 --weights fixed --out run"
    )
    from_flags, _, _ = pretrain_config(registry, line.split())
    (tmp_path / "method.yaml").write_text(
        """
        domain: tabular
        data: people.csv
        method:
          terms: [contrast, {name: rebuild, weight: 0.5, standardise: true}]
          hide: {name: random, ratio: 0.6}
          teacher: {name: ema, momentum: 0.99}
          views: {global: 2, local: 1}
        """
    )
    from_yaml, _, _ = pretrain_config(registry, ["--config", str(tmp_path / "method.yaml")])
    assert from_yaml.as_data() == from_flags.as_data()
    python = {
        "terms": ["contrast", {"name": "rebuild", "weight": 0.5, "standardise": True}],
        "hide": {"name": "random", "ratio": 0.6},
        "teacher": "ema:momentum=0.99",
        "views": {"global": 2, "local": 1},
    }
    from_python = config_from({"domain": "tabular", "data": "people.csv", "method": python}, registry)
    assert (from_python.method, from_python.method_name) == (from_flags.method, from_flags.method_name)
    assert from_flags.method_name == "contrast+rebuild"
    from_flags.save(tmp_path / "config.yaml")
    again, _, _ = pretrain_config(registry, ["--config", str(tmp_path / "config.yaml")])
    assert again.as_data() == from_flags.as_data(), "config.yaml holds the method whole"


def test_a_recipe_is_the_rows_and_gives_way_to_what_is_said(registry: Registry) -> None:
    def config(line: str) -> Any:
        return pretrain_config(registry, ["people.csv", *line.split()])[0]

    row, more = config("--method mae"), config("--method mae --term vicreg --views global=2")
    assert row.method.hide == more.method.hide == use("random", ratio=0.5)
    assert row.training == more.training
    assert config("--method mae --hide random:ratio=0.9").method.hide == use("random", ratio=0.9)
    assert config("--method mae --hide random:ratio=0.9 --set random.ratio=0.8").method.hide == use("random", ratio=0.8)
    assert config("--method mae --hide block").method.hide == use("block")
    assert config("--method mae --hide=block:ratio=0.3").method.hide == use("block", ratio=0.3)


@pytest.mark.parametrize("wrong", ["--term", "--term --out run", "--hide"])
def test_a_flag_without_its_part_says_what_it_wants(registry: Registry, wrong: str) -> None:
    with pytest.raises(UserError, match=r"wants \w+:OPTION=VALUE"):
        pretrain_config(registry, ["people.csv", "--method", "mae", *wrong.split()])
    with pytest.raises(UserError, match="give --method, or --term"):
        pretrain_config(registry, ["people.csv", "--hide", "random"])


def test_a_composed_method_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    table = plugins.load("tabular").examples(tmp_path / "example")[0]
    monkeypatch.chdir(tmp_path)
    line = (
        f"tabular pretrain {table} --term contrast:out=16 --term rebuild:depth=1 --weights pareto --steps 3 "
        "--batch-size 16 --encoder.width 16 --encoder.depth 1 --log-every 1"
    )
    assert main(line.split()) == 0
    assert "runs/tabular-contrast+rebuild-1/encoder" in capsys.readouterr().out
    run = tmp_path / "runs" / "tabular-contrast+rebuild-1"
    assert '"rebuild/weight"' in (run / "metrics.jsonl").read_text()
    assert main(["tabular", "pretrain", "--resume", "--out", str(run)]) == 0
    assert main(["tabular", "pretrain", "--resume", "--out", str(run), "--term", "vicreg"]) == 2
    assert "was made with method 'contrast+rebuild', not 'contrast+rebuild" in capsys.readouterr().err
    small = {"batch_size": 16, "steps": 1, "quiet": True, "encoder": {"name": "mlp", "width": 16}}
    outcome = unlabeled.pretrain("tabular", table, {"terms": ["contrast"]}, out=tmp_path / "python", **small)
    assert outcome.step == 1
