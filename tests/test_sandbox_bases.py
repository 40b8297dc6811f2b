"""The base of a world: the shipped one for its own world, any other made once, and never one of another recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unmirage.errors import UserError
from unmirage.sandbox import card as cards
from unmirage.sandbox.bases import pretrained, recipe_of
from unmirage.sandbox.card import Card
from unmirage.sandbox.pretrain import Recipe
from unmirage.sandbox.shipped import base_weights
from unmirage.sandbox.world import World

TINY = {"scenes": 64, "vision_steps": 1, "steps": 10, "lr": 1}
HIDDEN = World("none", 0.5)


def told(_name: str, _done: int, _total: int) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int, int]]]:
    """A base that is hardly trained, after a look at two questions a word."""
    reports: list[tuple[str, int, int]] = []
    out = tmp_path_factory.mktemp("base") / "none"
    with pytest.MonkeyPatch.context() as patch:
        examine = cards.examine
        patch.setattr(cards, "examine", lambda model, processor, recipe: examine(model, processor, recipe, 2))
        assert pretrained(HIDDEN, out, lambda *report: reports.append(report), TINY) == out
    return out, reports


def test_the_shipped_base_stands_for_its_world(tmp_path: Path) -> None:
    assert pretrained(World(), tmp_path / "base", told) == base_weights()
    assert not (tmp_path / "base").exists()


def test_another_world_has_a_base_of_its_own(made: tuple[Path, list[tuple[str, int, int]]]) -> None:
    out, reports = made
    card = Card.model_validate_json((out / "card.json").read_bytes())
    assert Recipe(**card.recipe) == recipe_of(HIDDEN, TINY)
    assert (card.recipe["salience"], card.recipe["opener_weight"], card.recipe["lr"]) == ("none", 0.5, 1.0)
    assert card.world_hash == cards.world_hash(HIDDEN)
    assert reports[0] == ("pretraining (none, 0.5, vision)", 1, 1)
    assert reports[-1] == ("pretraining (none, 0.5, language)", 10, 10)


def test_a_base_that_is_there_is_not_made_again(made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "make_base", lambda *_: pytest.fail("it is made again"))
    assert pretrained(HIDDEN, made[0], told, TINY) == made[0]
    for other in (TINY | {"steps": 11}, TINY | {"seed": 1}, {}):
        with pytest.raises(UserError, match=r"another recipe \(.*give another folder"):
            pretrained(HIDDEN, made[0], told, other)


def test_what_an_interrupted_run_left_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "card.json").write_text("{}")
    calls: list[Recipe] = []
    monkeypatch.setattr(cards, "make_base", lambda recipe, _out, _progress: calls.append(recipe))
    pretrained(HIDDEN, tmp_path, told)
    assert calls == [recipe_of(HIDDEN, {})]
    assert calls[0].steps < Recipe().steps


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("My notes.")
    with pytest.raises(UserError, match="other than a base model"):
        pretrained(HIDDEN, tmp_path, told)
    (tmp_path / "card.json").write_text(json.dumps({"title": "mine"}))
    with pytest.raises(UserError, match="other than a base model"):
        pretrained(HIDDEN, tmp_path, told)


def test_equal_worlds_have_equal_recipes() -> None:
    assert recipe_of(World("badge", 0), {}).hash == recipe_of(World("badge", 0.0), {}).hash
    assert recipe_of(World("badge", 0), {"lr": 1}).hash == recipe_of(World("badge", 0.0), {"lr": 1.0}).hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 3}, "'step' is not a setting of pretraining; there are seed, "),
        ({"salience": "badge"}, "'salience' is not a setting"),
        ({"steps": 0}, "steps is a whole number above 0, not 0"),
        ({"steps": 2.5}, "steps is a whole number above 0, not 2.5"),
        ({"steps": True}, "steps is a whole number"),
        ({"seed": -1}, "seed is a whole number from 0 up, not -1"),
        ({"lr": "much"}, "lr is a number above 0, not 'much'"),
        ({"lr": float("nan")}, "lr is a number above 0"),
        ({"weight_decay": float("inf")}, "weight_decay is a number from 0 up"),
        ({"scenes": 31}, "only 31; set scenes higher"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        pretrained(World(), tmp_path / "base", told, settings)
    assert not (tmp_path / "base").exists()


def test_the_world_of_another_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed 3"):
        pretrained(World(seed=3), tmp_path / "base", told)
