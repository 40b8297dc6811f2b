"""The same audit between two sets of files: the label is which one a row comes from, whatever its own label is.

Cues that tell train from test, or what is to be forgotten from what is to be retained, are shortcuts for whatever is
trained or measured on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from unmirage.audit.data import Audit, Settings, audit_data
from unmirage.audit.table import Source
from unmirage.datasets import Problem


def compare(source: Source, against: Path, settings: Settings) -> Audit:
    """Audit with the label "is in `source`" against "is in the file `against`", read in the same way."""
    # A source of its own: the frames that `source` keeps must not be shared.
    columns = replace(source.columns, label=None, refusal=())  # its own labels are not looked at
    other = Source(
        [against], columns, source.format, source.images, source.encoding, source.strict, beside=source.paths
    )
    source.beside = [against]
    names = (source.paths[0].name, against.name)
    if names[0] == names[1]:
        names = (str(source.paths[0]), str(against))
    settings = replace(settings, labels="given", target=f"the file {names[0]}", directions=names)
    audit = audit_data(_Both(source, other), settings)
    return replace(audit, label_source=f"the file: {names[0]} (true) or {names[1]} (false)")


@dataclass
class _Both:
    """Two sources one after the other, with the label which one it is."""

    one: Source
    other: Source

    @property
    def paths(self) -> Sequence[Path]:
        return [*self.one.paths, *self.other.paths]

    @property
    def problems(self) -> list[Problem]:
        return self.one.problems + self.other.problems

    @property
    def warnings(self) -> list[str]:
        return self.one.warnings + self.other.warnings

    @property
    def defects(self) -> Counter[str]:
        return self.one.defects + self.other.defects

    @property
    def weighted(self) -> bool:
        return self.one.weighted

    def has_labels(self, file: int) -> bool:
        return True

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows of both files, labelled by the file that they are of."""
        for frame in self.one.frames():
            yield frame.with_columns(label=pl.lit(True), answer=pl.lit(None, dtype=pl.String))
        for frame in self.other.frames():
            yield frame.with_columns(
                label=pl.lit(False), answer=pl.lit(None, dtype=pl.String), file=pl.col("file") + len(self.one.paths)
            )
