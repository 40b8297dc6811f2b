"""What decides an alignment run: one validated model, from a method's name, flat settings, or a combination of terms.

    AlignConfig(method="npo", lr=1e-5, beta=0.1)                      # a method with its options
    AlignConfig(method="npo", retain=["ce", "kl"], **{"kl.weight": 0.5})
    AlignConfig(forget="rmu", retain=[{"objective": "ce", "weight": 2}])

A bare option such as `beta` or `layer` goes to every term that has it, `npo.beta` to that objective's terms only;
`forget_weight` and the like multiply the weights of a role's terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from unmirage.align.cues import COMPLIANCE, REFUSAL, joined, with_cues
from unmirage.align.methods import Method, TermLike, method
from unmirage.align.objectives import Objective, find
from unmirage.align.roles import ROLES, Role
from unmirage.align.signals import base_of
from unmirage.align.weights import Average, Schedule, Weight
from unmirage.audit.model.edits import bare
from unmirage.errors import UserError
from unmirage.yaml_text import read_yaml

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
COMBINATION, WORDS = "combination", "words"
NEEDED: Mapping[Role, tuple[str, ...]] = {
    "twins": (WORDS,),
    "pairs": (WORDS,),
    "refuse": (WORDS,),
    "spurious": (REFUSAL, COMPLIANCE),
}
"""The words without which the rows of a role cannot be made."""
_SUCH_AS = {WORDS: "What,Share", REFUSAL: "Share", COMPLIANCE: "What"}


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    """The same words; raises ValueError for one that is empty, repeated or more than one word."""
    for word in words:
        if word.split() != [word] or not bare(word):
            raise ValueError(f"{word!r} is not one word; each stands in the place of a question's opening word")
    if repeated := [word for at, word in enumerate(words) if bare(word) in map(bare, words[:at])]:
        raise ValueError(f"{repeated[0]!r} is there twice; give each word once")
    return words


def _several_words(given: Any) -> Any:
    return (given,) if isinstance(given, str) else () if given is None else given


Words = Annotated[tuple[str, ...], BeforeValidator(_several_words), AfterValidator(_words)]
_PAIRED: Mapping[str, Role] = {"preference": "preference", "pair-logits": "pairs", "pair-activations": "pairs"}


class TermConfig(BaseModel):
    """One part of the loss: an objective with its options, on the rows of one role, and how much it weighs.

    average: over the rows of a batch, or over groups of them by harm and opening word with weights that grow by
    `rate` where the loss is high (group-DRO).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    role: Role
    objective: str
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    schedule: Schedule = "constant"
    horizon: Positive = 1.0
    limit: float = 0.0
    rate: Positive = 0.1
    average: Average = "rows"
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _complete_options(self) -> Self:
        """Writes every option down, also those left at their defaults; raises ValueError for one that is wrong."""
        object.__setattr__(self, "options", asdict(_options(find(self.objective), self.options)))
        if (paired := _PAIRED.get(self.found().signal)) and self.role != paired:
            raise ValueError(f"{self.objective} reads two samples of a row, so its role is {paired}, not {self.role}")
        if self.average == "groups" and self.schedule == "dual":
            raise ValueError(f"{self.objective} has either average=groups or schedule=dual: both are steered by rate")
        return self

    def found(self) -> Objective:
        """The objective itself."""
        return find(self.objective)

    def config(self) -> Any:
        """The objective's own configuration."""
        return _options(self.found(), self.options)

    def factor(self) -> Weight:
        """The weight with its schedule."""
        return Weight(self.weight, self.schedule, self.horizon, self.limit, self.rate, self.average)

    def reads_cues(self) -> bool:
        """Whether it must know which opening words are cues."""
        return self.average == "groups" or self.found().reads_cues

    def layers(self) -> tuple[int, ...]:
        """The decoder layers it reads, from 0."""
        if base_of(self.found().signal) != "activations":
            return ()
        return tuple(self.options["layers"]) if "layers" in self.options else (self.options["layer"],)


class AlignConfig(BaseModel):
    """Settings of one run.

    steps: optimizer steps, each of `accumulation` batches of `batch_size` rows in every process. lr: peak learning
    rate, cosine decay after `warmup` (a share of the steps). max_length: longest sample in tokens; what is longer is
    cut. general_rows: how many rows of the general data to use, drawn by the seed; None: all.
    train: what may change: "decoder" (all but the vision tower), "language" (not the projector either), "all", or
    "layers" (`trained_layers`; without them, the layers that the terms read and the two below each). parameters: only
    parameters whose names contain this, such as "mlp.down_proj".
    tune: "full", "lora", or "qlora" (LoRA on 4-bit weights; needs bitsandbytes); merge: write a merged model instead
    of an adapter. precision: "fp32", "bf16" (what is trained stays in float32), or "auto": bf16 where the checkpoint
    is stored in half precision and a GPU is there. checkpointing: recompute activations in the backward pass.
    preferred: better answers of preference terms, and refusals of `refuse`: given, drawn from refusals, or (preference
    only) sampled from the model.
    words: opening words that twins get. refusal_words, compliance_words: the cues, as an audit finds them; `words`
    are those of the method and all of these where none are given. twin_rows: how many rows of the data get a twin, as
    many harmful as harmless ones, drawn by the seed; None: all. cue_share: the share of twins that open with a cue for
    the wrong verdict (harmful ones with a compliance word, harmless ones with a refusal word). spurious_answers:
    harmful answers of `spurious`: given (by id, with the preferred data), or sampled: what the model itself answers.
    upweight: how often a row of `learn` is taken that the model before training gets wrong (JTT).
    finish: "negate" subtracts `task_scale` times what was learnt (Ilharco et al. 2023, arXiv 2212.04089); "project"
    takes the direction that the cue-direction term measures out of what writes to the layers up to its own
    (`projection`); it may follow on steps=0.
    truncate, answer_head, share_forward, image_cache: ways to compute less with equal results. reference: "stored"
    (computed once, kept on disk), "adapter" (LoRA switched off), or "auto".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str
    terms: tuple[TermConfig, ...]
    steps: Annotated[int, Field(ge=0)] = 200
    lr: Positive = 3e-4
    batch_size: Count = 32
    accumulation: Count = 1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    save_steps: Count = 100
    max_length: Annotated[int, Field(gt=1)] | None = None
    general_rows: Annotated[int, Field(ge=0)] | None = None
    preferred: Literal["given", "refusals", "sampled"] = "given"
    words: Words = ()
    refusal_words: Words = ()
    compliance_words: Words = ()
    twin_rows: Count | None = None
    cue_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    spurious_answers: Literal["given", "sampled"] = "given"
    upweight: Count = 1
    train: Literal["decoder", "language", "all", "layers"] = "decoder"
    trained_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    parameters: str | None = None
    tune: Literal["full", "lora", "qlora"] = "full"
    lora_rank: Count = 16
    lora_alpha: Positive = 32.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    merge: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpointing: bool = False
    finish: Literal["none", "negate", "project"] = "none"
    task_scale: Positive = 1.0
    truncate: bool = True
    answer_head: bool = True
    share_forward: bool = True
    image_cache: bool = True
    reference: Literal["auto", "stored", "adapter"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _gather_terms(cls, given: Any) -> Any:
        return given if not isinstance(given, Mapping) or "terms" in given else expand(given)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.terms:
            raise ValueError("there is nothing to train for; name a method, or terms such as forget=npo and retain=ce")
        if self.reference == "adapter" and self.tune == "full":
            raise ValueError("reference=adapter switches an adapter off, but tune=full has none")
        if self.train == "layers" and not self.changed_layers():
            raise ValueError("train=layers needs trained_layers, as no term reads a layer")
        if self.train != "layers" and self.trained_layers is not None:
            raise ValueError(f"trained_layers needs train=layers, not train={self.train}")
        if self.finish == "negate" and self.tune != "full":
            raise ValueError("finish=negate needs tune=full")
        self._check_projection()
        self._check_words()
        self._check_rows()
        return self

    def _check_words(self) -> None:
        """Completes `words` by the cues; raises ValueError for words that are missing or at odds."""
        if both := {bare(word) for word in self.refusal_words} & {bare(word) for word in self.compliance_words}:
            raise ValueError(f"{min(both)!r} is among refusal_words and compliance_words; it is a cue for one of them")
        if not self.words:
            object.__setattr__(self, WORDS, joined(self.refusal_words, self.compliance_words))
        needed: list[tuple[str, str]] = [(role, name) for role in self.roles() for name in NEEDED.get(role, ())]
        needed += [(term.objective, name) for term in self.terms if term.reads_cues() for name in (REFUSAL, COMPLIANCE)]
        for who, name in needed:
            if not getattr(self, name):
                raise ValueError(
                    f"{who} cannot do without {name}; give --audit AUDIT.json or --set {name}={_SUCH_AS[name]}"
                )

    def _check_projection(self) -> None:
        if self.steps == 0 and self.finish != "project":
            raise ValueError("steps=0 trains nothing; only finish=project has work to do then")
        if self.finish == "project" and (self.tune != "full" or len(self.measuring()) != 1):
            raise ValueError("finish=project needs tune=full and one term pairs=cue-direction, which says the layer")

    def measuring(self) -> list[TermConfig]:
        """The terms that measure the direction of a cue."""
        return [term for term in self.terms if term.objective == "cue-direction"]

    def _check_rows(self) -> None:
        if self.cue_share and not (self.refusal_words or self.compliance_words):
            raise ValueError(
                "cue_share makes twins that open with a cue, but there is none; give --audit AUDIT.json, set "
                "refusal_words and compliance_words, or cue_share=0"
            )
        if self.upweight > 1 and "learn" not in self.roles():
            raise ValueError("upweight takes rows of learn more often, but no term has this role")
        if self.preferred == "sampled" and "refuse" in self.roles():
            raise ValueError("refuse needs refusals, which the model does not make up; set preferred=refusals or given")

    def layers(self) -> frozenset[int]:
        """All decoder layers that terms read."""
        return frozenset(layer for term in self.terms for layer in term.layers())

    def changed_layers(self) -> frozenset[int]:
        """The decoder layers that train=layers lets change."""
        if self.trained_layers is not None:
            return frozenset(self.trained_layers)
        return frozenset(near for layer in self.layers() for near in range(max(0, layer - 2), layer + 1))

    def roles(self) -> list[Role]:
        """The roles that terms have, each once, in the order of the terms."""
        return list(dict.fromkeys(term.role for term in self.terms))


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings as fields of AlignConfig: the terms of the method or of the roles given, with their options."""
    if odd := [key for key in given if not isinstance(key, str)]:
        raise ValueError(f"a setting's name is a word, not {odd[0]!r}")
    rest = dict(given)
    name = rest.get("method") or COMBINATION
    if not isinstance(name, str):
        raise ValueError(f"method is a name, not {name!r}")
    preset = method(name) if name != COMBINATION else None
    rest = {**_defaults(preset, rest), **rest, "method": name}
    chosen: dict[str, Any] = {**(dict(preset.terms) if preset else {}), **{r: rest.pop(r) for r in ROLES if r in rest}}
    terms = [_term(role, one) for role in ROLES for one in _several(chosen.get(role, ()))]
    factors = {role: rest.pop(f"{role}_weight", 1) for role in ROLES}
    for key in list(rest):
        if _assign(terms, key, rest[key]) and key not in AlignConfig.model_fields:
            del rest[key]
    for role in ROLES:
        factor = _number(factors[role], f"{role}_weight")
        for term in (term for term in terms if term["role"] == role):
            term["weight"] = _number(term.get("weight", 1), f"{term['objective']}.weight") * factor
    return {**rest, "terms": terms}


def _defaults(preset: Method | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a method; its opening words are completed by the cues that are given.

    Where no words are given they are taken out of `given`, so that they do not stand before these.
    """
    defaults = dict(preset.settings) if preset else {}
    if WORDS in defaults and not given.get(WORDS):
        given.pop(WORDS, None)
        cues = (_texts(given.get(name)) for name in (REFUSAL, COMPLIANCE))
        defaults[WORDS] = joined(defaults[WORDS], *cues)
    return defaults


def _texts(value: Any) -> tuple[str, ...]:
    """Words as they are given, one or several; what is none is told when its own setting is checked."""
    several = (value,) if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return tuple(one for one in several if isinstance(one, str))


def _several(value: Any) -> Sequence[TermLike]:
    if value == "" or value is None:  # a role that is to have no terms
        return []
    terms = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(terms, list | tuple) or not all(isinstance(term, str | Mapping) for term in terms):
        raise ValueError(f"terms are names of objectives, or names with options; not {value!r}")
    return list(terms)


def _term(role: Role, given: TermLike) -> dict[str, Any]:
    """A term's fields; options may stand beside them, as in {"objective": "npo", "beta": 0.1}."""
    fields_: dict[str, Any] = {"objective": given} if isinstance(given, str) else dict(given)
    own = {key: fields_.pop(key) for key in list(fields_) if key in TermConfig.model_fields}
    if "objective" not in own:
        raise ValueError(f"a {role} term names no objective: {given!r}")
    if not isinstance(own.get("options", {}), Mapping):
        raise ValueError(f"the options of {own['objective']} are written as names and values, not {own['options']!r}")
    return {"role": role, **own, "options": {**own.get("options", {}), **fields_}}


def _assign(terms: list[dict[str, Any]], key: str, value: Any) -> bool:
    """Gives one setting to the terms that know it: options, or with a dot also weight and schedule."""
    owner, dot, option = key.rpartition(".")
    found = False
    for term in terms if not dot else [term for term in terms if term["objective"] == owner]:
        if option in {field.name for field in fields(find(term["objective"]).config)}:
            term["options"] = {option: value, **term["options"]} if not dot else {**term["options"], option: value}
            found = True
        elif dot and option in TermConfig.model_fields and option not in ("role", "objective", "options"):
            term[option] = value
            found = True
    return found


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is a finite number, not {value!r}")
    return number


def _options(objective: Objective, given: Mapping[str, Any]) -> Any:
    """The objective's configuration; raises ValueError naming the option that is unknown or wrong."""
    known = [field.name for field in fields(objective.config)]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{objective.name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    try:
        found = TypeAdapter(objective.config).validate_python(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{objective.name}.{where}={first['input']}: {first['msg']}") from error
    for name, value in asdict(found).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{objective.name}.{name}={value}: Input should be a finite number")
    return found


def parse_settings(
    settings: Sequence[str], base: Mapping[str, Any] | None = None, audit: Path | None = None, **given: Any
) -> AlignConfig:
    """The configuration from `name=value` pairs as on the command line, before those of `base`.

    `audit` gives the cues that neither has. Raises UserError naming the faulty one.
    """
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name:
            raise UserError(f"--set {setting!r} is not a setting; write it as --set lr=1e-4.")
        if name in values:
            raise UserError(f"{name} has an option of its own or is set twice; leave --set {setting} out.")
        several = "," in value or name.endswith(("layers", "words"))
        values[name] = value.split(",") if several else value
    values = {**(base or {}), **values}
    return checked(with_cues(values, audit) if audit else values)


def read_settings(file: Path | None, settings: Sequence[str], audit: Path | None = None, **given: Any) -> AlignConfig:
    """The configuration from a YAML file, with `settings` and `given` before what it says; raises UserError."""
    if file is None:
        return parse_settings(settings, audit=audit, **given)
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: the settings cannot be read ({error}); correct the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: settings are written as `name: value`, one a line.")
    return parse_settings(settings, base=content, audit=audit, **given)


def checked(values: Mapping[str, Any]) -> AlignConfig:
    """The configuration from settings of any source; raises UserError naming the faulty one."""
    try:
        return AlignConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(f"there is no setting {name!r}; {known_settings(values)}.") from error
        if first["loc"][:1] == ("terms",) and len(first["loc"]) == 3:
            name = f"{expand(values)['terms'][first['loc'][1]]['objective']}.{first['loc'][2]}"
            raise UserError(f"setting {name}={first['input']}: {first['msg']}.") from error
        why = first["msg"].removeprefix("Value error, ")
        known = bool(first["loc"]) and first["loc"][0] in values  # of a list, an entry is named by its number
        raise UserError(f"setting {name}={first['input']}: {why}." if known else f"{why}.") from error


def known_settings(values: Mapping[str, Any]) -> str:
    """What may be set, for a sentence."""
    own = [name for name in AlignConfig.model_fields if name != "terms"]
    terms = expand({key: values[key] for key in ("method", *ROLES) if key in values})["terms"]
    options = [
        f"{term['objective']}.{field.name}" for term in terms for field in fields(find(term["objective"]).config)
    ]
    return f"the settings are {', '.join([*own, *(f'{role}_weight' for role in ROLES), *dict.fromkeys(options)])}"
