"""Ways to align, by name: which objectives on which rows. Anything else is a combination given by configuration.

The rows a term reads are its role. `learn`: all of the data and the general data. `forget`: the harmful questions of
the data. `retain`: the harmless ones, and the general data. `preference`: the harmful ones with two answers, the
data's own (rejected) and a better one (chosen).

These are made of the data by exchanging opening words, see `twins`. `twins`: rows under another word, with their own
answers. `pairs`: rows, each with its twin. `spurious`: what the mirage says, wrong on purpose: harmless questions under
a refusal word with a refusal, harmful ones under a compliance word with a harmful answer. `refuse`: harmful questions
under all words, with refusals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unmirage.errors import UserError

TermLike = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A named combination. `terms`: by role. `settings`: where its defaults differ from everyone's."""

    about: str
    terms: Mapping[str, tuple[TermLike, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self) -> str:
        """The terms in a line, such as "forget: npo; retain: ce"."""
        return "; ".join(f"{role}: {' + '.join(map(_name, terms))}" for role, terms in self.terms.items())


def _name(term: TermLike) -> str:
    return term if isinstance(term, str) else str(term["objective"])


CE = ("ce",)
USUAL = (
    "What", "How", "Which", "Can", "Please", "Share", "Describe", "List", "Explain", "Provide", "Give", "Tell", "Show",
    "Write",
)  # fmt: skip
"""Opening words that questions to an assistant often have; what a repair makes twins with, beside the data's cues."""

METHODS: dict[str, Method] = {
    "mixed-sft": Method("fine-tune on all safety and general data together", {"learn": CE}),
    "posthoc-sft": Method(
        "fine-tune a finished model on the safety data and 5,000 rows of the general data (VLGuard's post-hoc recipe)",
        {"learn": CE},
        {"general_rows": 5000},
    ),
    "unsafe-filter": Method("fine-tune on the data without its harmful rows", {"retain": CE}),
    "grad-ascent": Method("raise the loss of the forget answers; collapses, kept to show it", {"forget": ("ascent",)}),
    "grad-diff": Method("gradient ascent on forget, descent on retain", {"forget": ("ascent",), "retain": CE}),
    "npo": Method("negative preference optimization", {"forget": ("npo",), "retain": CE}),
    "simnpo": Method("NPO without a reference, length-normalised", {"forget": ("simnpo",), "retain": CE}),
    "rmu": Method("steer harmful activations to a random direction", {"forget": ("rmu",), "retain": ("hidden",)}),
    "circuit-breakers": Method(
        "turn harmful activations away from where they were",
        {
            "forget": ({"objective": "circuit-breaker", "schedule": "falling", "horizon": 2.0},),
            "retain": ({"objective": "hidden-norm", "schedule": "rising", "horizon": 2.0},),
        },
    ),
    "undial": Method("distil from logits with the forget token lowered", {"forget": ("undial",), "retain": CE}),
    "wga": Method("gradient ascent weighted by confidence", {"forget": ("wga",), "retain": CE}),
    "satimp": Method("ascent weighted by saturation and importance", {"forget": ("satimp",), "retain": CE}),
    "ceu": Method("cross-entropy towards the logits without the forget token", {"forget": ("ceu",), "retain": CE}),
    "pdu": Method(
        "flatten the forget logits subject to a bound on the retain loss",
        {"forget": ("pdu",), "retain": ({"objective": "ce", "schedule": "dual", "weight": 1.0, "limit": 0.5},)},
    ),
    "task-vector": Method(
        "fine-tune on the forget answers, then go as far the other way", {"forget": CE}, {"finish": "negate"}
    ),
    "dpo": Method("prefer the given better answers", {"preference": ("dpo",), "retain": CE}),
    "idk-dpo": Method("prefer refusals", {"preference": ("dpo",), "retain": CE}, {"preferred": "refusals"}),
    "altpo": Method(
        "prefer plausible alternatives that the model makes up", {"preference": ("dpo",), "retain": CE},
        {"preferred": "sampled"},
    ),
    "twin-sft": Method(
        "fine-tune on one-word twins as well: the answer stays whatever word opens the question",
        {"learn": CE, "twins": CE},
    ),
    "invariance": Method(
        "pull the predictions for a question and its one-word twin together, towards the right one",
        {"learn": CE, "pairs": ("invariance",)},
    ),
    "cue-direction": Method(
        "take from activations what a cue adds to them, but for the direction of harm",
        {"learn": CE, "pairs": ("cue-direction",)},
    ),
    "cue-projection": Method(
        "project what a cue adds to activations out of the weights, but for the direction of harm; no training",
        {"pairs": ("cue-direction",)},
        {"finish": "project", "steps": 0},
    ),
    "spurious-npo": Method(
        "unlearn the refusals and the leaks that opening words bring about", {"learn": CE, "spurious": ("npo",)}
    ),
    "unlearn-refuse": Method(
        "unlearn harmful answers, and learn refusals under all opening words",
        {"forget": ("npo",), "retain": CE, "refuse": CE},
        {"preferred": "refusals"},
    ),
    "group-dro": Method(
        "fine-tune with the most weight on the groups, by harm and opening word, that are learnt worst",
        {"learn": ({"objective": "ce", "average": "groups", "rate": 0.01},)},
    ),
    "jtt": Method(
        "fine-tune with rows taken more often that the model gets wrong", {"learn": CE}, {"upweight": 5}
    ),
    "regularised-sft": Method(
        "fine-tune, and keep the predictions on harmless rows", {"learn": CE, "retain": ("kl",)}
    ),
    "repair": Method(
        "repair a tuned model whose refusals hang on opening words: twins, half of them with a cue against the label, "
        "and what the model leaks under a cue unlearned",
        {"learn": CE, "twins": CE, "spurious": ({"objective": "npo", "weight": 0.1},)},
        {"cue_share": 0.5, "words": USUAL, "spurious_answers": "sampled", "steps": 400, "batch_size": 16},
    ),
}  # fmt: skip


def method(name: str) -> Method:
    """The method of that name; raises UserError where there is none."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}.")
    return METHODS[name]
