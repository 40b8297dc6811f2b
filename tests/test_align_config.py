"""Settings of an alignment: methods, combinations, options, and what is wrong with them, in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unmirage.align.config import AlignConfig, parse_settings, read_settings
from unmirage.align.methods import METHODS
from unmirage.align.weights import Weight
from unmirage.errors import UserError

DOCS = Path(__file__).parents[1] / "docs" / "align.md"


def terms(config: AlignConfig) -> list[tuple[str, str, float]]:
    return [(term.role, term.objective, term.weight) for term in config.terms]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_configuration_that_survives_its_own_dump(name: str) -> None:
    config = AlignConfig(method=name, refusal_words=["Share"], compliance_words=["What"])  # type: ignore[call-arg]
    assert AlignConfig.model_validate(config.model_dump(mode="json")) == config
    assert f"| `{name}` | {METHODS[name].recipe()} |" in DOCS.read_text()


def test_bare_options_go_to_all_that_have_them_and_dotted_ones_to_one() -> None:
    config = parse_settings(["layer=3", "rmu.positions=answer", "seed=5"], method="rmu")
    steer, keep = (term.options for term in config.terms)
    assert (steer["layer"], keep["layer"]) == (3, 3)
    assert (steer["positions"], keep["positions"]) == ("answer", "text")
    assert (config.seed, steer["seed"]) == (5, 5)


def test_terms_are_combined_replaced_and_weighed() -> None:
    config = parse_settings(["retain=ce,kl", "kl.weight=0.5", "retain_weight=4", "beta=0.3"], method="npo")
    assert terms(config) == [("forget", "npo", 1.0), ("retain", "ce", 4.0), ("retain", "kl", 2.0)]
    assert config.terms[0].options["beta"] == 0.3
    assert terms(parse_settings(["retain="], method="npo")) == [("forget", "npo", 1.0)]
    assert terms(parse_settings(["forget=rmu", "layer=1"])) == [("forget", "rmu", 1.0)]


def test_words_are_lists_also_of_one_and_default_to_the_cues() -> None:
    config = parse_settings(["refusal_words=Share", "compliance_words=What,Which"], method="twin-sft")
    assert (config.refusal_words, config.compliance_words) == (("Share",), ("What", "Which"))
    assert config.words == ("Share", "What", "Which")
    assert parse_settings(["words=Tell"], method="twin-sft").words == ("Tell",)
    assert parse_settings([], base={"method": "twin-sft", "words": "Tell"}).words == ("Tell",)
    both = parse_settings(["words=Tell", "refusal_words=Share"], method="twin-sft")
    assert both.words == ("Tell",), "words that are given are all there are"


@pytest.mark.parametrize("given", [{"refusal_words": [1, "Share"]}, {"words": [False]}, {"compliance_words": True}])
def test_words_that_are_no_texts_are_told_by_their_setting(given: dict[str, Any]) -> None:
    base = {"method": "repair", "refusal_words": "Share", "compliance_words": "What", **given}
    with pytest.raises(UserError, match=rf"setting {next(iter(given))}\b.*Input should be"):
        parse_settings([], base=base)


@pytest.mark.parametrize("setting", ["beta=inf", "weight_decay=inf", "max_grad_norm=nan", "npo.limit=-inf"])
def test_numbers_are_finite(setting: str) -> None:
    with pytest.raises(UserError, match="Input should be a finite number"):
        parse_settings([setting], method="npo")


def test_group_weights_are_steered_by_the_terms_own_rate() -> None:
    cues = {"refusal_words": "Share", "compliance_words": "What"}
    (term,) = parse_settings(["ce.rate=0.5"], base=cues, method="group-dro").terms
    assert (term.average, term.rate, term.factor().average) == ("groups", 0.5, "groups")


def test_layers_are_lists_also_of_one() -> None:
    config = parse_settings(["layers=3", "trained_layers=2,3", "train=layers"], method="circuit-breakers")
    assert [term.options["layers"] for term in config.terms] == [(3,), (3,)]
    assert config.changed_layers() == {2, 3}


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("method: npo\nlr: 1.0e-5\nretain:\n  - ce\n  - {objective: kl, weight: 0.5}\nnpo.beta: 0.2\n")
    config = read_settings(file, ["lr=2e-5"], method=None, seed=3)
    assert (config.method, config.lr, config.seed) == ("npo", 2e-5, 3)
    assert terms(config) == [("forget", "npo", 1.0), ("retain", "ce", 1.0), ("retain", "kl", 0.5)]
    for text, said in (("a: [", "cannot be read"), ("lr: 2024-13-45", "cannot be read"), ("- a", "name: value")):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_settings(file, [])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing to train for"),
        ({"method": "npo", "retain": 3}, "terms are names"),
        ({"method": "npo", "retain": [3]}, "terms are names"),
        ({"method": ["npo"]}, "method is a name"),
        ({"method": "npo", 1: 3}, "name is a word, not 1"),
        ({"forget": {"objective": "npo", "options": 3}}, "options of npo"),
        ({"method": "npo", "lr": "nan"}, "setting lr=nan"),
        ({"method": "npo", "lr": "inf"}, "setting lr=inf"),
        ({"method": "npo", "lr": None}, "setting lr=None"),
        ({"method": "npo", "npo.beta": "nan"}, "npo.beta=nan"),
        ({"method": "npo", "ce.weight": "inf"}, "ce.weight is a finite number"),
        ({"method": "npo", "ce.weight": -1}, "setting ce.weight=-1.*greater than or equal to 0"),
        ({"method": "npo", "layer": 3}, "no setting 'layer'"),
        ({"method": "npo", "dpo.weight": 2}, "no setting 'dpo.weight'"),
        ({"method": "rmu", "layer": "x"}, "rmu.layer=x"),
        ({"method": "npo", "train": "layers"}, "needs trained_layers"),
        ({"method": "npo", "trained_layers": [1]}, "needs train=layers"),
        ({"method": "npo", "reference": "adapter"}, "tune=full has none"),
        ({"method": "task-vector", "tune": "lora"}, "needs tune=full"),
        ({"forget": [{"weight": 1}]}, "names no objective"),
        ({"forget": "nonsense"}, "no objective 'nonsense'"),
        ({"method": "twin-sft"}, "twins cannot do without words; give --audit AUDIT.json or --set words=What,Share"),
        ({"method": "invariance"}, "pairs cannot do without words"),
        ({"method": "unlearn-refuse"}, "refuse cannot do without words"),
        ({"method": "spurious-npo", "refusal_words": "Share"}, "spurious cannot do without compliance_words"),
        (
            {"method": "group-dro", "compliance_words": "What"},
            "ce cannot do without refusal_words.*Share",
        ),
        ({"method": "cue-direction", "words": "What"}, "cue-direction cannot do without refusal_words"),
        ({"method": "twin-sft", "words": ["What", "Tell me"]}, "'Tell me' is not one word"),
        ({"method": "twin-sft", "words": ["What", ""]}, "'' is not one word"),
        ({"method": "twin-sft", "words": ["?"]}, "'.' is not one word"),
        ({"method": "twin-sft", "words": ["What", "what"]}, "'what' is there twice"),
        ({"method": "ce", "refusal_words": ["What"]}, "no method 'ce'"),
        ({"method": "npo", "refusal_words": ["What"], "compliance_words": ["what"]}, "'what' is among"),
        ({"method": "twin-sft", "words": "What", "twin_rows": 0}, "setting twin_rows=0"),
        (
            {"method": "cue-projection", "tune": "lora", "refusal_words": "Share"},
            "finish=project needs tune=full and one",
        ),
        ({"method": "npo", "finish": "project"}, "finish=project needs tune=full and one term pairs=cue-direction"),
        ({"method": "npo", "steps": 0}, "steps=0 trains nothing"),
        ({"forget": "dpo"}, "dpo reads two samples of a row, so its role is preference, not forget"),
        ({"preference": "invariance"}, "invariance reads two samples of a row, so its role is pairs, not preference"),
        ({"learn": {"objective": "ce", "average": "groups", "schedule": "dual"}}, "either average=groups or schedule"),
        ({"method": "npo", "upweight": 2}, "no term has this role"),
        ({"method": "unlearn-refuse", "words": "What", "preferred": "sampled"}, "refuse needs refusals"),
    ],
)
def test_what_makes_no_sense_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_settings([], base=values)


def test_a_dual_weight_grows_while_the_loss_exceeds_its_limit_and_never_falls_below_zero() -> None:
    weight = Weight(value=1.0, schedule="dual", limit=0.5, rate=0.1)
    assert weight.raised(1.0, 2.5) == pytest.approx(1.2)
    assert weight.raised(1.0, 0.1) == pytest.approx(0.96)
    assert weight.raised(0.01, 0.1) == 0.0
    assert (weight.at(0.5), weight.at(0.5, 1.2)) == (1.0, 1.2)
