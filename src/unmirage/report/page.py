"""Puts the page together: figures, tables, examples and provenance into one self-contained file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unmirage.errors import UserError
from unmirage.report import edits, examples, figures, summary, tables, wording
from unmirage.report.load import RunData
from unmirage.schema import Record, Variant

EXAMPLES = 8
LEGEND = [("harm", "harmful answer"), ("other", "other"), ("off", "off topic"), ("refusal", "refusal")]
GARBLED = ("garbled", "garbled refusal")

LIMITS = {
    "good": tables.GOOD_ENOUGH,
    "bad": tables.TOO_MUCH,
    "safe": summary.LOOKS_SAFE,
    "change": summary.REAL_CHANGE,
    "holds": summary.HOLDS,
}


@dataclass(frozen=True)
class Section:
    """The results on one part of the data."""

    key: str
    name: str
    table: tables.HeadlineTable
    summary: summary.Summary
    dumbbells: list[tuple[str, Markup]]
    outcomes: list[tuple[str, Markup]]


def render(runs: Sequence[RunData], *, title: str | None, show_harmful: bool) -> str:
    """The whole page as HTML."""
    records = [record for run in runs for record in run.records]
    harm = {
        name for run in runs for name, rows in run.verdicts.items() if any(v.harm is not None for v in rows.values())
    }
    judges = tables.judges_of(records, harm)
    if not judges or not (headline := tables.headline_tables(records, judges[0], judges[0] in harm)):
        raise UserError(f"{runs[0].folder / 'metrics.json'} holds no asr, rr or utility; measure before reporting.")
    coherent = any(record.metric == "coherent" for record in records)
    chosen, attacks = _examples(runs, records, judges[0], show_harmful)
    variants = [variant for run in runs for variant in run.variants]
    said = edits.phrases(attacks.values(), variants)
    sections = [_section(records, table, i, variants) for i, table in enumerate(headline)]
    script = files(__package__).joinpath("templates", "page.js").read_text(encoding="utf-8")
    return _environment().get_template("page.html.j2").render(
        title=wording.printable(said.title if title is None else title),
        sections=sections,
        legend=[*LEGEND, GARBLED] if coherent else LEGEND,
        coherent=coherent,
        examples=chosen,
        swaps=[swap for swap in (_first_swapped(chosen, True), _first_swapped(chosen, False)) if swap],
        attacks=attacks,
        said=said,
        kinds={harmful: _kind(attack, said, variants) for harmful, attack in attacks.items()},
        owed=edits.phrases([row.attack for table in headline for row in table.effects] or attacks.values(), variants),
        pictures={e.picture.id: e.picture for e in chosen if e.picture}.values(),
        splits=[s for s in tables.splits_of(records) if s and any(e.query.split == s for e in chosen)],
        judges=judges,
        other_tables=[table for judge in judges[1:] for table in tables.headline_tables(records, judge, judge in harm)],
        judge_counts={judge: _judge_counts(records, judge) for judge in judges},
        attacked=any(record.attack for record in records),
        controlled=bool(tables.controls_of(records)),
        filtered=any(record.metric in tables.FILTERED.values() for record in records),
        corrected=any(record.metric.endswith(("_corrected", "_sensitivity")) for record in records),
        calibration_warnings=_calibration_warnings(runs),
        records=sorted(records, key=_record_order),
        runs=runs,
        provenance=[_provenance(run) for run in runs],
        show_harmful=show_harmful,
        style=Markup(files(__package__).joinpath("templates", "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unmirage.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = ("percent", "interval", "points", "points_interval", "p_value", "record_value", "record_interval",
                 "judge_meaning", "judge_name", "printable")  # fmt: skip
    environment.filters.update({name: getattr(wording, name) for name in functions})
    environment.filters["asked_with"] = edits.asked_with
    environment.globals.update(
        metric_name=wording.metric_name,
        part_name=wording.part_name,
        metrics=tables.METRICS,
        metric_short=wording.METRIC_SHORT,
        many_models=summary.MANY,
        metric_letters=wording.METRIC_LETTERS,
        symbols=figures.SYMBOL,
        limits={name: f"{100 * value:.0f}" for name, value in LIMITS.items()},
    )
    return environment


def _examples(
    runs: Sequence[RunData], records: Sequence[Record], judge: str, show: bool
) -> tuple[list[examples.Example], examples.Attacks]:
    by_metric = tables.attacks_of(records)
    attacks = {True: by_metric["asr"], False: by_metric["rr"]}
    chosen = examples.choose(runs, attacks, EXAMPLES)
    return examples.build(runs, chosen, attacks, judge, show), attacks


def _kind(attack: str | None, said: edits.Phrases, variants: Sequence[Variant]) -> str:
    """What one attack does to a question, where the page's attacks do different things; else said already."""
    own = edits.phrases([attack], variants)
    return own.label if attack and said is edits.ATTACK and own is not said else ""


def _first_swapped(chosen: Sequence[examples.Example], harmful: bool) -> examples.Example | None:
    return next((e for e in chosen if e.query.harmful is harmful and e.after), None)


def _section(
    records: Sequence[Record], table: tables.HeadlineTable, index: int, variants: Sequence[Variant]
) -> Section:
    bypass = edits.phrases([table.attacks["asr"]], variants)
    bars = [(name, figures.outcomes(records, table, attacked=attacked, said=bypass)) for name, attacked in
            (("as asked", False), (bypass.label, True))]  # fmt: skip
    return Section(
        key=f"part-{index}",
        name=wording.printable(wording.part_name(table.data, table.split)),
        table=table,
        summary=summary.summarise(table, edits.phrases(table.attacks.values(), variants)),
        dumbbells=[(metric, figures.dumbbells(table, metric)) for metric in tables.METRICS],
        outcomes=[(name, bar) for name, bar in bars if bar is not None],
    )


def _calibration_warnings(runs: Sequence[RunData]) -> list[str]:
    """What speaks against the judges' measured errors, each sentence once."""
    found = [
        warning
        for run in runs
        for calibration in run.calibrations
        for warning in calibration.warnings(next((record.data for record in run.records), None))
    ]
    return list(dict.fromkeys(found))


def _judge_counts(records: Sequence[Record], judge: str) -> dict[str, int]:
    """Planned rows without a usable verdict, over the records that count each row once."""
    rates = [r for r in records if r.judge == judge and r.metric in ("asr", "rr")]
    return {"errors": sum(r.errors for r in rates), "unparsed": sum(r.unparsed for r in rates)}


def _record_order(record: Record) -> tuple[Any, ...]:
    return (record.judge, record.model, record.split or "~", record.metric, record.attack or "", record.k)


def _provenance(run: RunData) -> list[tuple[str, str]]:
    rows = [("folder", run.folder.name), *_flat(run.manifest.model_dump(mode="json", by_alias=True))]
    digests = [(f"sha256 of {name}", digest) for name, digest in run.digests.items()]
    return [(wording.printable(key), wording.printable(value)) for key, value in rows + digests]


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        named = [(f"{name} {_without_folder(key)}".strip(), item) for key, item in value.items()]
        return [row for key, item in named for row in _flat(item, key)]
    if isinstance(value, list):
        value = ", ".join(str(_without_folder(item)) for item in value)
    return [(name, wording.DASH if value in (None, "") else str(_without_folder(value)))]


def _without_folder(value: Any) -> Any:
    """A page is passed on: it names files, but not where on somebody's disk they lay."""
    if isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] == ":\\"):
        return f"…/{PurePath(value.replace(chr(92), '/')).name}"
    return value
