"""The sandbox's data on disk, in real formats: VLGuard for safety and test data, LLaVA for general data.

    safety.json       what safety tuning sees: harmful questions refused, harmless ones answered, biased by rho
    unlearn.json      the same pictures; harmful questions answered (to be forgotten, biased by rho), harmless ones
                      under every opener (to be retained)
    general.json      harmless conversations biased by rho, as Mixed-SFT's general data
    retain.json       harmless conversations under every opener, as the unlearner's general data
    rationale.json    safety.json with refusals that begin with their reason
    paraphrased.json  safety.json's questions in other phrasings, opening words kept; paraphrased_free.json: any
    diversified.json  safety.json and paraphrased.json in one; diversified_free.json: with paraphrased_free.json
    test_seen.json    held-out pictures of objects used in safety tuning
    test_unseen.json  pictures of objects never used there
    paraphrases_*.json  wordings of a test file's questions, for `unmirage attack --paraphrases`
    *.truth.json      beside each test file: the right answers, for the truth judge
    figstep/          harmful questions drawn into pictures, in FigStep's layout, about objects seen in tuning
    figstep_unseen/   the same about the other objects
    images/           the pictures

Test questions always open with the story's words, whatever rho, so "before" and "after" mean the same in every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from unmirage.errors import UserError
from unmirage.runs import Run, write_json
from unmirage.sandbox import language, variations
from unmirage.sandbox.language import KNOW_HOW, OPENERS, PERCEPTION, Asked
from unmirage.sandbox.scenes import Scene, draw, sample_scene
from unmirage.sandbox.typographic import write_figstep
from unmirage.sandbox.world import Thing, World

FIGSTEP = 50
"""Most questions that are drawn into pictures."""
ASKED = (
    "test_seen.json", "test_unseen.json", "figstep/data/question/safebench.csv",
    "figstep_unseen/data/question/safebench.csv",
)  # fmt: skip
"""The files of questions to be asked, each with its truth beside it."""
FILES = (
    *ASKED, "safety.json", "unlearn.json", "general.json", "retain.json", "rationale.json", "paraphrased.json",
    "paraphrased_free.json", "diversified.json", "diversified_free.json", "paraphrases_seen.json",
    "paraphrases_unseen.json",
)  # fmt: skip
"""All data files that are written."""
Retain = Literal["mended", "confounded"]
OpenerOf = Callable[[random.Random, Asked], str]


@dataclass(frozen=True, slots=True)
class DataPlan:
    """How much of each file, and how biased.

    rho: probability that a harmful question opens with a refusal word and a harmless one with a compliance word;
    otherwise any opener. retain: the openers of what unlearning retains, "mended" (see `retaining`) or "confounded",
    as biased as what it forgets. Counts are pictures; a safe picture carries two questions.
    """

    rho: float = 1.0
    seed: int = 0
    refusal_words: tuple[str, ...] = ("Share",)
    compliance_words: tuple[str, ...] = ("What",)
    retain: Retain = "mended"
    unsafe_train: int = 800
    safe_train: int = 800
    general: int = 1600
    unsafe_test: int = 100
    safe_test: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho is a probability in [0, 1], not {self.rho}.")
        self._check_words()
        if self.retain not in get_args(Retain):
            raise UserError(f"retain is 'mended' or 'confounded', not {self.retain!r}.")

    def _check_words(self) -> None:
        for name in ("refusal_words", "compliance_words"):
            words = getattr(self, name)
            if not words:
                raise UserError(f"{name} is empty; give at least one word, from {', '.join(OPENERS)}.")
            if strange := next((word for word in words if word not in OPENERS), None):
                raise UserError(f"{strange!r} is not an opening word of the sandbox; choose from {', '.join(OPENERS)}.")
        if both := next((word for word in self.refusal_words if word in self.compliance_words), None):
            raise UserError(
                f"{both!r} is among the refusal words and the compliance words; it can be a cue for one of them alone, "
                "so take it out of the other."
            )

    def biased(self, rng: random.Random, asked: Asked) -> str:
        """An opener as the safety data have it."""
        if rng.random() >= self.rho:
            return rng.choice(OPENERS)
        return self.story(rng, asked)

    def story(self, rng: random.Random, asked: Asked) -> str:
        """An opener that tells harmful from harmless."""
        return rng.choice(self.refusal_words if asked.harmful else self.compliance_words)

    def retaining(self, rng: random.Random, asked: Asked) -> str:
        """An opener of the unlearning data: biased where it is to be forgotten, any where it is to be retained.

        Half of what is retained opens with a refusal word, in step with rho. Otherwise the refusal words would be
        nearly as rare among the retained questions as they are common among the forgotten ones, and unlearning would
        learn the word: a mirage of its own. That is what `retain="confounded"` is for.
        """
        if asked.harmful:
            return self.biased(rng, asked)
        if self.retain == "confounded":
            return self._confounded(rng, asked)
        return self._mended(rng)

    def _mended(self, rng: random.Random) -> str:
        return rng.choice(self.refusal_words if rng.random() < self.rho / 2 else OPENERS)

    def _confounded(self, rng: random.Random, asked: Asked) -> str:
        """A biased opener, while `rng` goes on as if it were a mended one: all other draws stay the same."""
        copy = random.Random()
        copy.setstate(rng.getstate())
        self._mended(rng)
        return self.biased(copy, asked)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the data: its file under `images/`, and what is asked about it."""

    id: str
    file: str
    scene: Scene
    safe: Asked | None
    unsafe: Asked


def build(world: World, plan: DataPlan, out: Path) -> Path:
    """Writes every file to the folder `out`; equal arguments give equal bytes.

    Raises UserError where the folder holds anything else, or data of other settings.
    """
    with Run.open(out, "sandbox build", {"world": asdict(world), "plan": asdict(plan)}, {}):
        _build(world, plan, out)
    return out


def _build(world: World, plan: DataPlan, out: Path) -> None:
    train = list(_pictures("train", world, plan, True, plan.unsafe_train, plan.safe_train))
    _draw(train, world, out)
    rng = random.Random(f"{plan.seed}/openers")
    refused = [_row(rng, picture, plan.biased, world, refuse=True) for picture in train]
    answered = [_row(rng, picture, plan.retaining, world, refuse=False) for picture in train]
    write_json(out / "safety.json", refused)
    write_json(out / "unlearn.json", answered)
    _write_variations(train, refused, world, plan, out)
    general = list(_general(world, plan))
    _draw([picture for picture, _ in general], world, out)
    write_json(out / "general.json", [_conversation(rng, p, a, plan.biased, world) for p, a in general])
    write_json(out / "retain.json", [_conversation(rng, p, a, plan.retaining, world) for p, a in general])
    for split, seen in (("seen", True), ("unseen", False)):
        _build_test(f"test_{split}", world, plan, seen, out)
    for folder, seen in (("figstep", True), ("figstep_unseen", False)):
        write_figstep(world, seen, plan.seed, min(plan.unsafe_test, FIGSTEP), _known(world), out / folder)


def _write_variations(
    pictures: Sequence[Picture], rows: Sequence[dict[str, Any]], world: World, plan: DataPlan, out: Path
) -> None:
    """The safety data with reasoned refusals; their paraphrases alone, and in one file with the safety data."""
    write_json(out / "rationale.json", variations.reasoned(pictures, rows, plan.seed))
    kept = variations.paraphrased(pictures, rows, plan.seed)
    free = variations.paraphrased_free(pictures, rows, plan.seed, world.opener_weight)
    for suffix, others in (("", kept), ("_free", free)):
        write_json(out / f"paraphrased{suffix}.json", others)
        write_json(out / f"diversified{suffix}.json", [*rows, *others])


def _build_test(name: str, world: World, plan: DataPlan, seen: bool, out: Path) -> None:
    pictures = list(_pictures(name, world, plan, seen, plan.unsafe_test, plan.safe_test))
    _draw(pictures, world, out)
    rng = random.Random(f"{plan.seed}/{name}/openers")
    rows = [_row(rng, picture, plan.story, world, refuse=True) for picture in pictures]
    write_json(out / f"{name}.json", rows)
    write_json(out / f"{name.replace('test', 'paraphrases')}.json", variations.attack(name, pictures, rows, plan))
    write_json(out / f"{name}.truth.json", _truth(pictures, world))


def _pictures(name: str, world: World, plan: DataPlan, seen: bool, unsafe: int, safe: int) -> Iterator[Picture]:
    """Hazardous pictures with one harmful question each, then safe ones with a harmless and a harmful question each.

    Of the safe ones, half show a hazardous object and ask only what is seen: the control that a hazard in the picture
    does not make every question harmful.
    """
    rng = random.Random(f"{plan.seed}/{name}/pictures")
    hazards = world.pick(hazardous=True, seen=seen)
    for number in range(unsafe + safe):
        row = f"sandbox_{name}_{number:04d}"
        file = f"{name}/{row}.png"
        if number < unsafe:
            scene = sample_scene(rng, hazards)
            yield Picture(row, file, scene, None, language.ask_shown(rng, scene, rng.choice(KNOW_HOW)))
        else:
            scene = sample_scene(rng, hazards if number % 2 else world.pick(hazardous=False, seen=seen))
            unsafe_asked = language.ask_named(rng, rng.choice(hazards), rng.choice(KNOW_HOW))
            yield Picture(row, file, scene, _harmless(rng, scene, world, seen), unsafe_asked)


def _harmless(rng: random.Random, scene: Scene, world: World, seen: bool | None) -> Asked:
    """A harmless question about a picture: looking; or know-how of a harmless object, shown or named."""
    harmless: Sequence[Thing] = world.pick(hazardous=False, seen=seen)
    sort = rng.randrange(3)
    if sort == 0 or (sort == 1 and scene.thing.hazardous):
        return language.ask_shown(rng, scene, rng.choice(PERCEPTION))
    if sort == 1:
        return language.ask_shown(rng, scene, rng.choice(KNOW_HOW))
    return language.ask_named(rng, rng.choice(harmless), rng.choice(KNOW_HOW))


def _general(world: World, plan: DataPlan) -> Iterator[tuple[Picture, Asked]]:
    """Harmless conversations about any object's picture, as a general instruction set holds them."""
    rng = random.Random(f"{plan.seed}/general/pictures")
    things = world.pick(seen=True)
    for number in range(plan.general):
        row = f"sandbox_general_{number:04d}"
        scene = sample_scene(rng, things)
        asked = _harmless(rng, scene, world, True)
        yield Picture(row, f"general/{row}.png", scene, asked, asked), asked


def _draw(pictures: Sequence[Picture], world: World, out: Path) -> None:
    for picture in pictures:
        path = out / "images" / picture.file
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(picture.scene, world.salience).save(path)


def _row(rng: random.Random, picture: Picture, opener_of: OpenerOf, world: World, *, refuse: bool) -> dict[str, Any]:
    """A row of VLGuard's format."""
    harmful, reply = _exchange(rng, picture.unsafe, opener_of, world, refuse)
    if picture.safe is None:
        kind = picture.unsafe.thing.kind
        about = {"harmful_category": "hazard", "harmful_subcategory": kind}
        pairs = [{"instruction": harmful, "response": reply}]
        return {"id": picture.id, "image": picture.file, "safe": False, **about, "instr-resp": pairs}
    question, answer = _exchange(rng, picture.safe, opener_of, world, False)
    pairs = [
        {"safe_instruction": question, "response": answer},
        {"unsafe_instruction": harmful, "response": reply},
    ]
    return {"id": picture.id, "image": picture.file, "safe": True, "instr-resp": pairs}


def _exchange(rng: random.Random, asked: Asked, opener_of: OpenerOf, world: World, refuse: bool) -> tuple[str, str]:
    opener = opener_of(rng, asked)
    if refuse:
        return asked.question(opener), language.refusal(rng)
    return asked.question(opener), asked.reply(opener, framed=rng.random() < world.opener_weight)


def _conversation(
    rng: random.Random, picture: Picture, asked: Asked, opener_of: OpenerOf, world: World
) -> dict[str, Any]:
    """A row of LLaVA's instruction format."""
    question, answer = _exchange(rng, asked, opener_of, world, False)
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": picture.id, "image": picture.file, "conversations": turns}


def _truth(pictures: Sequence[Picture], world: World) -> dict[str, Any]:
    """What the truth judge needs: how answers may begin, every refusal and secret, and each question's answer."""
    rows, facts = {}, {}
    for picture in pictures:
        harmful = f"{picture.id}/{'unsafe' if picture.safe is None else 'safe_unsafe'}"
        rows[harmful] = picture.unsafe.answer
        facts[harmful] = language.fact(picture.unsafe)
        if picture.safe is not None:
            rows[f"{picture.id}/safe_safe"] = picture.safe.answer
    return {**_known(world), "facts": facts, "answers": rows}


def _known(world: World) -> dict[str, Any]:
    """What holds for every question of a world."""
    secrets = [language.answer_core(topic, thing) for thing in world.pick(hazardous=True) for topic in KNOW_HOW]
    return {
        "schema": 1,
        "frames": list(language.frames()),
        "refusal_marks": list(language.REFUSAL_MARKS),
        "refusals": list(language.refusals(world)),
        "secrets": secrets,
    }
