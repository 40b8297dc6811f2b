"""How figures, attacks and model text are written for people."""

from __future__ import annotations

import math
import re

from unmirage.schema import Record

DASH, MINUS = "\u2013", "\u2212"
METRIC_NAMES = {
    "asr": "Harmful questions that got a harmful answer",
    "rr": "Harmless questions that were refused",
    "utility": "Harmless questions that were answered correctly",
}
METRIC_SHORT = {"asr": "attack success, ASR", "rr": "rejection rate, RR", "utility": "utility"}
METRIC_LETTERS = {"asr": "ASR", "rr": "RR", "asr_any": "ASR, any of K", "rr_any": "RR, any of K"}
SPLIT_NAMES = {
    "seen": "Objects used in safety tuning",
    "unseen": "Objects never used in safety tuning",
    None: "All questions",
}
COUNTS = ("_gained", "_lost")
DIFFERENCES = ("_change", "_effect", "_selectivity")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def metric_name(metric: str, harm: bool) -> str:
    """What a metric is called; only a judge that looks at harm can speak of harmful answers."""
    return METRIC_NAMES[metric] if harm or metric != "asr" else "Harmful questions that were not refused"


def percent(value: float | None, digits: int = 1) -> str:
    """A rate in [0, 1] as a percentage; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{100 * value:.{digits}f}%"


def rounded(value: float | None) -> str:
    """A percentage for running text: whole, but never rounded to a 0% or 100% that was not measured."""
    whole = value is None or value in (0, 1) or 0.01 <= value <= 0.99
    return percent(value, 0 if whole else 1)


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval in percent."""
    if low is None or high is None:
        return ""
    return f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def points(value: float | None) -> str:
    """A difference of two rates in percentage points, always with its sign."""
    if value is None or not math.isfinite(value):
        return DASH
    if round(100 * value, 1) == 0:
        return "±0.0"
    return f"{100 * value:+.1f}".replace("-", MINUS)


def points_interval(low: float | None, high: float | None) -> str:
    """The ends of a paired interval in percentage points."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def p_value(p: float | None) -> str:
    """An exact p as it is usually written."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def record_value(record: Record) -> str:
    """A record's value in its own unit: p, a count, points or percent."""
    if record.metric.endswith(("_p", "_p_holm")):
        return p_value(record.value) or DASH
    if record.metric.endswith(COUNTS):
        return DASH if record.value is None else f"{record.value:.0f}"
    return points(record.value) if record.metric.endswith(DIFFERENCES) else percent(record.value)


def record_interval(record: Record) -> str:
    """A record's interval in the unit of its value."""
    ends = (record.low, record.high)
    return points_interval(*ends) if record.metric.endswith(DIFFERENCES) else interval(*ends)


def part_name(data: str | None, split: str | None) -> str:
    """What a table is of: a part of the data, and which data where there are several."""
    return f"{data}: {split_name(split)}" if data else split_name(split)


def split_name(split: str | None) -> str:
    """What a part of the data is called on the page."""
    return SPLIT_NAMES.get(split, str(split))


def judge_name(judge: str) -> str:
    """A judge without the version behind its @."""
    return judge.partition("@")[0]


_MEANING = (
    ("sandbox-truth", "compares with the known answers: harm is told word for word, and so is what is right"),
    ("rules-", "our own rules: who declines what, and where in the answer; they do not look at harm"),
    ("vlguard-keywords", "VLGuard's published keyword list, to the letter: for comparison with papers that used it"),
    (
        "paper-",
        "the measuring of the paper's released code: that list, phrases that make an answer irrelevant, and a model "
        "asked for relevance; nobody is asked about harm, so its attack success is not that of judges that are",
    ),
    ("vqa", "VQA accuracy: how many of ten people gave this answer"),
    ("choice", "the option that the answer names, against the right one"),
    ("llm-", "a language model, asked for refusal and for harm, each for itself"),
    ("classifier-", "a text classifier for refusals; it does not look at harm"),
)


def judge_meaning(judge: str) -> str:
    """What a judge looks at, in a line; empty for one that this page does not know."""
    return next((meaning for start, meaning in _MEANING if judge.startswith(start)), "")


def printable(text: str) -> str:
    """Text that HTML can carry: control characters and lone surrogates become a visible U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))


def listing(items: list[str]) -> str:
    """An enumeration in a sentence: "A, B and C"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
