"""The variants of a recipe's attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from unmirage.attacks import OneWordAttack, one_word_variants
from unmirage.attacks.edits import At, Change
from unmirage.attacks.goals import Goal, none_to_attack
from unmirage.errors import UserError
from unmirage.recipes.config import Attack, Recipe
from unmirage.schema import Query, Variant


def variants_of(
    recipe: Recipe, name: str, queries: Sequence[Query], given: Path | None, tell: Callable[[str], object]
) -> list[Variant]:
    """The variants, and their controls where the attack has them; only those of the questions asked.

    `given` is the attack's file, where it lies. What a file of paraphrases lacks is told. Raises UserError where no
    question has a variant: nothing would be attacked, and figures would not say so.
    """
    attack = recipe.attacks[name]
    found = _variants(recipe, attack, queries, given, tell)
    if not found:
        raise none_to_attack(f"attacks.{name}: the data", Goal(attack.goal), opening=attack.edit == "opening")
    return found


def _variants(
    recipe: Recipe, attack: Attack, queries: Sequence[Query], given: Path | None, tell: Callable[[str], object]
) -> list[Variant]:
    if attack.file is not None:
        from unmirage.verbs import read_variants

        return read_variants([_there(given)], list(queries))
    if attack.paraphrases is not None:
        return _paraphrased(attack, queries, _there(given), tell)
    return one_word_variants(queries, _one_word(attack, recipe.seeds[0])).variants


def check_attack(attack: Attack) -> None:
    """Raises UserError for words that no attack can be made of."""
    if attack.given is None:
        _one_word(attack, 0)


def check_apart(recipe: Recipe, measure: str) -> None:
    """Raises UserError where two attacks of a measure would call variants of the same questions the same."""
    attacks = {name: recipe.attacks[name] for name in recipe.measures[measure].attacks}
    mine = {name: _one_word(attack, 0) for name, attack in attacks.items() if attack.given is None}
    for (first, one), (second, other) in combinations(mine.items(), 2):
        if one.name == other.name and (one.goal is other.goal or Goal.flip in (one.goal, other.goal)):
            raise UserError(
                f"measures.{measure}.attacks: {first} and {second} make the same variants, {one.name}; leave one out."
            )


def _there(given: Path | None) -> Path:
    assert given is not None
    return given


def _paraphrased(attack: Attack, queries: Sequence[Query], file: Path, tell: Callable[[str], object]) -> list[Variant]:
    """As `unmirage attack --edit paraphrase` makes them: the official files by their names, others by their cue."""
    from unmirage.attacks.official import is_official, official
    from unmirage.attacks.paraphrases import read_paraphrases
    from unmirage.attacks.paraphrases import variants_of as paraphrased

    mine = [query for query in queries if Goal(attack.goal).concerns(query)]
    cue = attack.to[0] if attack.to else None
    if cue is None and is_official(file):
        found = official(file, mine)
    else:
        found = paraphrased(mine, read_paraphrases(file), cue, attack.control)
    tell(f"{file.name}: {found.told}")
    return found.variants


def _one_word(attack: Attack, seed: int) -> OneWordAttack:
    change, at, goal = Change(attack.edit), At(attack.at), Goal(attack.goal)
    return OneWordAttack(change, attack.to, at, goal, attack.control, attack.intent, attack.grammar, seed)
