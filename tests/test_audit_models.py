"""Words over several audited models: means and intervals by hand, what is refused, the command and its page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from unmirage.audit.model import figures
from unmirage.audit.model.results import Agreement, ModelAudit, SideBySide, WordPoint
from unmirage.audit.model.several import over_runs
from unmirage.audit.model.several_shown import headline, print_audits, write_page
from unmirage.cli import app
from unmirage.errors import UserError

DATA = {"Share": (100, 1.0, 0.5, 20.0), "What": (100, 0.0, -0.5, -20.0)}
WORDS = ("Share", "What", "Will", "Tell", "Give")


def audit(effects: Mapping[str, float], run: str, half: float = 0.1, **changes: Any) -> ModelAudit:
    """An audit that found these effects by leaning, `half` to each side; what the data hold is `DATA`."""
    points = []
    for word, effect in effects.items():
        n, rate, difference, z = DATA.get(word, (0, None, None, None))
        points.append(
            WordPoint(
                word=word, position="opening", source="given", metric="leaning", measured="generated", effect=effect,
                low=effect - half, high=effect + half, data_n=n, data_rate=rate, data_difference=difference, data_z=z,
            )
        )  # fmt: skip
    side = SideBySide(metric="leaning", points=points, n=2, untouched=[word for word in effects if word not in DATA])
    known = {"run": run, "model": run, "data": "test", "judge": "truth-1", "harmful": 10, "harmless": 10}
    return ModelAudit(
        **known | changes, controls={}, scoring=Agreement(used=False, why="-"), records=[], side_by_side=[side]
    )  # fmt: skip


RUNS = (
    {"Share": 0.5, "What": -0.5, "Will": 0.4, "Tell": -0.4, "Give": 0.0},
    {"Share": 0.7, "What": -0.2, "Will": 0.1, "Tell": 0.2, "Give": 0.3},
    {"Share": 0.3, "What": -0.6, "Will": -0.4, "Tell": 0.1, "Give": -0.3},
)


def test_means_against_untouched_words_and_against_controls() -> None:
    found = over_runs([audit(effects, str(i)) for i, effects in enumerate(RUNS)])
    untouched, controls = found.found
    assert (untouched.zero, controls.zero) == ("untouched", "controls")
    plain = {word.word: word for word in controls.words}
    assert plain["Share"].each == [0.5, 0.7, 0.3]
    assert plain["Share"].effect == pytest.approx(0.5)
    half = stats.t.ppf(0.975, 2) * 0.2 / 3**0.5
    assert (plain["Share"].low, plain["Share"].high) == pytest.approx((0.5 - half, 0.5 + half))
    assert plain["Share"].p == pytest.approx(stats.ttest_1samp([0.5, 0.7, 0.3], 0).pvalue, abs=1e-9)
    # The untouched words' means are 0, 0.2 and -0.2; a word among them is set against the two others.
    moved = {word.word: word for word in untouched.words}
    assert moved["Share"].each == pytest.approx([0.5, 0.5, 0.5])
    assert moved["What"].each == pytest.approx([-0.5, -0.4, -0.4])
    assert moved["Will"].each == pytest.approx([0.4 + 0.2, 0.1 - 0.25, -0.4 + 0.1])
    assert [word.untouched for word in untouched.words if word.word in DATA] == [False, False]
    assert (untouched.words[0].word, untouched.words[-1].word) == ("Share", "What")


def test_what_all_models_share_is_a_cue_and_what_they_differ_in_is_not() -> None:
    found = over_runs([audit(effects, str(i)) for i, effects in enumerate(RUNS)]).found[0]
    assert {word.word: word.reading for word in found.words} == {
        "Share": "refusal cue", "What": "compliance cue", "Will": "no effect", "Tell": "no effect", "Give": "no effect"
    }  # fmt: skip
    assert all(word.q is None or word.q >= word.p for word in found.words)


def test_the_sentences_say_what_moves_answers_and_how_near_to_zero_the_rest_is() -> None:
    runs = [RUNS[0], {**RUNS[1], "Share": 0.8}, RUNS[2]]
    moves, rest = headline(over_runs([audit(effects, str(i)) for i, effects in enumerate(runs)]))
    assert "Over 3 models" in moves
    assert "“Share” (+53) towards refusal and “What” (-43) towards answers: q < 0.05." in moves
    assert rest.startswith("Of 3 words that the data do not tie to refusal, 3 lie within 10 points of zero, 3 have")


@pytest.mark.parametrize(
    ("each", "half", "reading"),
    [
        ((0.01, 0.01), 0.1, "no effect"),  # the audits' own intervals, of 10 points to each side, have zero in them
        ((0.05, 0.05), 0.01, "no effect"),  # told from zero, and yet small
        ((0.1, 0.1), 0.01, "no effect"),
        ((0.5, 0.5), 0.1, "refusal cue"),
        ((0.5, 0.1 + 0.4), 0.1, "refusal cue"),
        ((0.3, 0.1 + 0.2), 0.1, "refusal cue"),  # the same but for rounding
        ((-0.5, -0.5), 0.1, "compliance cue"),
        ((-0.5, -0.5), 0.6, "no effect"),
    ],
)
def test_the_same_effect_in_all_models_is_read_by_their_own_intervals(
    each: tuple[float, ...], half: float, reading: str
) -> None:
    audits = [audit({"Share": effect}, str(i), half=half) for i, effect in enumerate(each)]
    (share,) = over_runs(audits).found[0].words
    assert (share.p, share.q, share.reading) == (None, None, reading)
    assert (share.low, share.high) == pytest.approx((each[0] - half, each[0] + half))


def test_the_widest_of_the_intervals_decides() -> None:
    (share,) = over_runs([audit({"Share": 0.2}, "a"), audit({"Share": 0.2}, "b", half=0.3)]).found[0].words
    assert (share.low, share.high, share.reading) == (pytest.approx(-0.1), pytest.approx(0.5), "no effect")


def test_words_without_a_test_are_named(tmp_path: Path) -> None:
    found = over_runs([audit(effects, str(i)) for i, effects in enumerate(RUNS)])
    moves, untested, _ = headline(found)
    assert moves.endswith("“What” (-43) towards answers: q < 0.05, or the same effect in all models.")
    assert untested.startswith("Without a test: “Share”. Where all models have the same effect there is no variance")
    assert untested.endswith("only if that does not hold zero and the effect is more than 10 points.")
    print_audits(found, Console(file=(printed := io.StringIO()), width=120))
    assert "Without a test: “Share”." in printed.getvalue()
    assert "Without a test: “Share”." in write_page(found, tmp_path / "page.html").read_text()


def test_no_effect_in_any_model_is_none() -> None:
    none = {"Share": 0.0, "Will": 0.0, "Tell": 0.0}
    assert {word.reading for word in over_runs([audit(none, "a"), audit(none, "b")]).found[0].words} == {"no effect"}


@given(st.lists(st.lists(st.floats(-1, 1), min_size=5, max_size=5), min_size=2, max_size=6))
def test_untouched_words_are_set_against_one_another(runs: list[list[float]]) -> None:
    found = over_runs([audit(dict(zip(WORDS, run, strict=True)), str(i)) for i, run in enumerate(runs)]).found[0]
    free = [word for word in found.words if word.untouched]
    assert len(free) == 3
    assert sum(word.effect for word in free) == pytest.approx(0, abs=1e-9)
    for word in found.words:
        assert word.low - 1e-12 <= word.effect <= word.high + 1e-12


def test_words_of_one_model_alone_are_left_out_and_told() -> None:
    more = {**RUNS[1], "Please": 0.2}
    found = over_runs([audit(RUNS[0], "a"), audit(more, "b")])
    assert found.notes == ["Not tried in all models, and left out: Please."]
    assert "Please" not in [word.word for word in found.found[0].words]


def test_one_run_twice_is_told() -> None:
    found = over_runs([audit(RUNS[0], "a"), audit(RUNS[1], "a")])
    assert found.notes == ["One run is given more than once: the intervals are too narrow."]


def test_with_fewer_than_two_untouched_words_the_controls_are_the_zero() -> None:
    few = [{word: effects[word] for word in ("Share", "What", "Will")} for effects in RUNS]
    assert [one.zero for one in over_runs([audit(one, str(i)) for i, one in enumerate(few)]).found] == ["controls"]


def test_audits_that_cannot_be_set_together_are_refused() -> None:
    first = audit(RUNS[0], "a")
    with pytest.raises(UserError, match="two or more"):
        over_runs([first])
    with pytest.raises(UserError, match="differ in their judge"):
        over_runs([first, audit(RUNS[1], "b", judge="keywords")])
    with pytest.raises(UserError, match="differ in their data"):
        over_runs([first, audit(RUNS[1], "b", data="other")])
    with pytest.raises(UserError, match="no word was tried"):
        over_runs([audit({"Share": 0.1, "Will": 0.2}, "a"), audit({"What": 0.3, "Tell": 0.1}, "b")])
    bare = audit({"Will": 0.1}, "b").model_copy(update={"side_by_side": []})
    with pytest.raises(UserError, match="knows no training data"):
        over_runs([first, bare])


class Words(HTMLParser):
    """The visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        """Collects text."""
        self.text += data


def write(folder: Path, one: ModelAudit) -> Path:
    folder.mkdir()
    (folder / "audit_model.json").write_text(one.model_dump_json(by_alias=True))
    return folder


def test_the_command_writes_both_files_and_escapes_what_it_read(tmp_path: Path) -> None:
    hostile = [{**effects, "<b>Do</b>": 0.1} for effects in RUNS]
    folders = [write(tmp_path / str(i), audit(one, str(i), model="same")) for i, one in enumerate(hostile)]
    result = CliRunner().invoke(app, ["audit", "models", *map(str, folders), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "100, 100 % refused" in result.output
    found = json.loads((tmp_path / "out" / "audit_models.json").read_text())
    assert found["schema"] == 1
    assert found["models"] == ["0", "1", "2"], "models of one name are told apart by their folders"
    page = (tmp_path / "out" / "audit_models.html").read_text()
    assert "<b>Do" not in page
    parser = Words()
    parser.feed(page)
    assert "Which words move the refusals of all 3 models?" in parser.text
    assert "<b>Do</b>" in parser.text
    assert "p and q are left open" in parser.text


@pytest.mark.parametrize(
    ("content", "told"), [("{}", "field 'run'"), ("nothing", "Invalid JSON"), (None, "cannot be read")]
)
def test_a_broken_audit_is_named(tmp_path: Path, content: str | None, told: str) -> None:
    good = write(tmp_path / "good", audit(RUNS[0], "a"))
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    result = CliRunner().invoke(app, ["audit", "models", str(good), str(bad), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert isinstance(result.exception, UserError)
    assert "bad.json" in str(result.exception)
    assert told in str(result.exception)
    assert not (tmp_path / "out").exists()


def drawn(places: list[tuple[float, float]]) -> list[tuple[str, str, float, float]]:
    """(name, text-anchor, x, y) of every name in the picture of points (refusal in the data, effect)."""
    points = [
        WordPoint(
            word=f"word{number}", position="opening", source="given", metric="leaning", measured="generated",
            effect=up, low=up, high=up, data_n=10, data_rate=0.5, data_difference=across, data_z=0.0,
        )
        for number, (across, up) in enumerate(places)
    ]  # fmt: skip
    svg = figures.scatter(SideBySide(metric="leaning", points=points, n=len(points)))
    found = re.findall(r'<text class="word strong" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(\w+)</text>', svg)
    return [(name, anchor, float(x), float(y)) for x, y, anchor, name in found]


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=20))
def test_no_name_in_the_picture_covers_another(places: list[tuple[float, float]]) -> None:
    names = drawn(places)
    assert len(names) == len(places)
    for number, (name, anchor, x, y) in enumerate(names):
        for other, its_anchor, its_x, its_y in names[:number]:
            # At least 7 units for a letter: what stands in one line must stand apart.
            left, right = (x - 7 * len(name), x) if anchor == "end" else (x, x + 7 * len(name))
            low, high = (its_x - 7 * len(other), its_x) if its_anchor == "end" else (its_x, its_x + 7 * len(other))
            assert right <= low or high <= left or abs(y - its_y) >= 11 - 1e-6, (name, other)


def test_names_stand_to_the_right_then_to_the_left_then_lower() -> None:
    first, second, third = sorted(drawn([(0.0, 0.0), (0.01, 0.0), (0.02, 0.0)]))
    assert (first[1], second[1]) == ("start", "end")
    assert first[3] == second[3] < third[3]
    (edge,) = drawn([(1.0, 0.0)])
    assert edge[1] == "end", "at the right edge there is no room to the right"
