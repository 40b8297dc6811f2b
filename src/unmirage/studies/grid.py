"""What a block shows, as rows and columns of estimates, before anything is written or drawn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unmirage.errors import UserError
from unmirage.schema import Record
from unmirage.studies.seeds import Estimate, estimate
from unmirage.studies.select import before, check_fields, field, fields_of, label, select
from unmirage.studies.specs import Measured, Spec

Key = tuple[Hashable, ...]
Cells = dict[Key, Estimate]


@dataclass(frozen=True)
class Axis:
    """A field of the records, its values called by their labels."""

    name: str
    labels: Mapping[str, str]

    def of(self, record: Record) -> str:
        """What a record's value is called."""
        return label(field(record, self.name), dict(self.labels))


def check(records: Sequence[Record], spec: Spec) -> None:
    """Raise UserError where a block names a field that no record has."""
    check_fields(fields_of(spec), records)


def estimates(records: Sequence[Record], spec: Spec, measured: Measured, key: Callable[[Record], Key]) -> Cells:
    """The estimates of one column, by key; what stands in no record has no cell."""
    cells: dict[Key, list[Record]] = {}
    for record in select(records, spec, measured):
        cells.setdefault(key(record), []).append(record)
    found = {}
    for place, several in cells.items():
        try:
            found[place] = estimate(several, measured)
        except UserError as error:
            raise UserError(f"{', '.join(map(str, place))}, {measured.name!r}: {error}") from None
    return found


def estimates_before(records: Sequence[Record], spec: Spec, measured: Measured, key: Callable[[Record], Key]) -> Cells:
    """The estimates of the same column without the attack; none where it does not ask for them."""
    return estimates(records, spec, before(measured), key) if measured.before else {}


def ordered(values: Iterable[str], first: Sequence[str], name: str) -> list[str]:
    """Labels in order: those named first, then the others as the records have them; numbers from low to high.

    Raises UserError where one that is named is not there.
    """
    there = dict.fromkeys(values)
    if gone := next((value for value in first if value not in there), None):
        raise UserError(f"the order of {name} names {gone!r}, which is not there; there are {', '.join(there)}")
    rest = [value for value in there if value not in first]
    return [*first, *(sorted(rest, key=float) if all(map(is_number, rest)) else rest)]


def is_number(text: str) -> bool:
    """The label reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def demand(spec: Spec, places: Iterable[tuple[str, bool]]) -> None:
    """Raise UserError for the first place without a figure, unless the block allows for such ones."""
    if spec.missing == "allow":
        return
    if empty := next((name for name, there in places if not there), None):
        raise UserError(f"there is no record for {empty}; complete the runs, or say missing: allow")
