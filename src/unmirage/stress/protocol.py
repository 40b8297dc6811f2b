"""What a stress is: a function from a plan and settings to a harder plan, or to figures of its own.

A stress changes what a plan says (another model folder, other questions or variants, another manner of asking) and
leaves asking, judging and measuring to others. What it makes on the way lies in its own folder, so that it can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from unmirage.backends.registry import AskingOptions, BackendName
from unmirage.errors import UserError
from unmirage.schema import Query, Variant
from unmirage.stress.facts import Fact

Need = Literal["forget", "general", "base", "facts"]
Report = Callable[[str, int, int], None]
"""Called with what is being done, what is done of it and what there is to do."""
WANTED: Mapping[Need, str] = {
    "forget": "rows with harmful questions and harmful answers (--forget)",
    "general": "rows with harmless questions and their answers (--general)",
    "base": "the model that this one was made from (--base)",
    "facts": "what the harmful questions ask for (--facts)",
}


class StressConfig(BaseModel):
    """Base of a stress's settings: immutable, each with a default where there is a sensible one; numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Plan:
    """What is asked of which model, and the rows that a stress may use.

    `model`: a checkpoint's folder, or with a server in `asking` the name by which it knows the model. `forget`: harmful
    questions with harmful answers; `general`: harmless ones with answers. `base`: the model that this one was made
    from. `facts`: what the answer to a question gives away, by query id. `sample_seeds`: where there are several, all
    is asked once with each.
    """

    model: str
    queries: Sequence[Query]
    variants: Sequence[Variant]
    asking: AskingOptions = field(default_factory=AskingOptions)
    forget: Sequence[Query] = ()
    general: Sequence[Query] = ()
    base: Path | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    seed: int = 0
    sample_seeds: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """The checkpoint's folder; raises UserError where the plan asks a model that is not in this machine's files."""
        if self.asking.name is BackendName.openai_server:
            raise UserError(
                f"this stress needs the weights of {self.model!r}, which a server does not give; name its folder."
            )
        return Path(self.model)

    def about(self, folder: Path) -> Plan:
        """The same about another model."""
        return replace(self, model=str(folder))

    def lacks(self, need: Need) -> bool:
        """Whether nothing is given of what a stress may need."""
        return not getattr(self, need)


@dataclass
class Work:
    """Where a stress works: `out`, a folder of its own; `report`, its progress; `note`, what the user should know."""

    out: Path
    report: Report
    tell: Callable[[str], object]
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Tells the user something that ends nothing; it is kept in `stress.json`."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            self.tell(sentence)


@dataclass(frozen=True, slots=True)
class Stress:
    """A registered stress. `function(plan, config, work)` returns the harder plan, or with `judged` False its records.

    `needs(config)`: what of the plan it uses and must be there. `trains`: whether it trains the model on some of that.
    """

    name: str
    about: str
    config: type[StressConfig]
    function: Callable[[Plan, Any, Work], Any]
    needs: Callable[[Any], tuple[Need, ...]]
    judged: bool = True
    trains: bool = False
