"""Groups of options: taken apart for the command line, put together for the verb, the same in every verb."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from unmirage import cli
from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.options import AdaptedAsking, Asking, Judging, OneJudge, grouped


@dataclass(frozen=True)
class Size:
    wide: Annotated[int, typer.Option(min=1, help="Columns.")]
    deep: Annotated[list[str] | None, typer.Option(help="Rows.")] = None


@dataclass(frozen=True)
class Named(Size):
    name: str = "plain"


def app_of(verb: Any) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(grouped(verb))
    return app


def draw(what: Annotated[str, typer.Argument()], loud: bool = False, *, size: Named, last: int = 3) -> None:
    """Draw something."""
    typer.echo(f"{what} {loud} {size} {last}")


def test_fields_are_options_in_the_place_of_their_group() -> None:
    command = get_command(app_of(draw))
    names = [option for parameter in command.params for option in parameter.opts]
    assert names[:6] == ["what", "--loud", "--wide", "--deep", "--name", "--last"]
    assert command.help == "Draw something."
    assert [parameter.required for parameter in command.params[:3]] == [True, False, True]


def test_the_verb_gets_its_group_whole() -> None:
    given = ["box", "--wide", "4", "--deep", "a", "--deep", "b", "--loud"]
    shown = CliRunner().invoke(app_of(draw), given)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"box True {Named(4, ['a', 'b'])} 3\n"


@pytest.mark.parametrize(("given", "told"), [(["box"], "--wide"), (["box", "--wide", "0"], "--wide")])
def test_a_field_is_checked_as_any_option_is(given: list[str], told: str) -> None:
    shown = CliRunner().invoke(app_of(draw), given)
    assert shown.exit_code == 2
    assert told in shown.output


def test_two_options_of_one_name_are_refused() -> None:
    def clash(size: Size, wide: int = 1) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="duplicate parameter name"):
        grouped(clash)


def test_asking_and_judging_say_what_backends_and_judges_take(tmp_path: Path) -> None:
    assert AdaptedAsking().options(tmp_path) == AskingOptions(run=tmp_path)
    asked = Asking(BackendName.openai_server, "http://localhost:1", 2, 3.0, 4, 5).options()
    assert asked == AskingOptions(BackendName.openai_server, "http://localhost:1", 4, 5, 2, 3.0)
    found = Judging("http://localhost:1", 2, 3.0, True, ["A=refusal"], True, tmp_path, 7).options()
    assert (found.server, found.concurrency, found.timeout, found.picture) == ("http://localhost:1", 2, 3.0, True)
    assert (found.labels, found.pair, found.policy, found.batch_size) == (("A=refusal",), True, tmp_path, 7)
    assert OneJudge().judge == "rules"


SHARED = ("--batch-size", "--concurrency", "--timeout", "--backend", "--server", "--judge-server", "--judge-label")


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_option_says_the_same_in_every_verb(name: str) -> None:
    commands: dict[str, Any] = get_command(cli.app).commands  # type: ignore[attr-defined]
    verbs = {"evaluate": commands["evaluate"], "search": commands["search"]}
    verbs["judge run" if "judge" in name else "audit model"] = (
        commands["judge"].commands["run"] if "judge" in name else commands["audit"].commands["model"]
    )
    found = {
        (parameter.help, parameter.default, parameter.metavar)
        for command in verbs.values()
        for parameter in command.params
        if name in parameter.opts
    }
    assert len(found) == 1
