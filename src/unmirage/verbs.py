"""What the verbs of the command line share: their options, data files read with every problem told."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unmirage.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unmirage.datasets import LoadedData
    from unmirage.schema import Query, Variant


class Format(StrEnum):
    """Formats of data files."""

    vlguard = "vlguard"
    llava = "llava"
    vqav2 = "vqav2"
    textvqa = "textvqa"
    textvqa_ocr = "textvqa-ocr"
    vizwiz = "vizwiz"
    scienceqa = "scienceqa"
    scienceqa_image = "scienceqa-image"
    figstep = "figstep"
    figstep_text = "figstep-text"
    figstep_benign = "figstep-benign"
    mm_safetybench = "mm-safetybench"
    mm_safetybench_tiny = "mm-safetybench-tiny"
    xstest = "xstest"
    mossbench = "mossbench"
    mossbench_contrast = "mossbench-contrast"
    siuo = "siuo"
    siuo_mcqa = "siuo-mcqa"
    vlsbench = "vlsbench"
    holisafe = "holisafe"
    spa_vl = "spa-vl"
    spa_vl_rejected = "spa-vl-rejected"
    beavertails_v = "beavertails-v"
    beavertails_v_rejected = "beavertails-v-rejected"
    jailbreakv = "jailbreakv"
    jailbreakv_redteam = "jailbreakv-redteam"
    one_word_attack = "one-word-attack"
    hf = "hf"


Model = Annotated[Path, typer.Argument(help="Checkpoint folder: a Hugging Face model with its processor.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad row instead of leaving it out.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images; without it, one beside the data file.")]

SharePrefix = Annotated[
    bool,
    typer.Option(
        "--share-prefix/--no-share-prefix",
        help="Read what questions about one picture have in common once, where a check shows that answers stay the "
        "same; in this process alone.",
    ),
]


def load_queries(path: Path, format: str, images: Path | None, split: str | None, strict: bool) -> list[Query]:
    """The queries of a data file; what is wrong with its rows goes to standard error."""
    from unmirage.datasets import load

    loaded = load(path, format=format, images=images, split=split, strict=strict, verify_images=True)
    _tell_problems(loaded)
    return loaded.queries


def _tell_problems(loaded: LoadedData, most: int = 5) -> None:
    """Bad rows go to standard error: how many of each kind, and the first few in full."""
    for problem in loaded.problems[:most]:
        typer.echo(f"warning: {problem}", err=True)
    if loaded.problems:
        counts = ", ".join(f"{count} {kind}" for kind, count in loaded.defects.items())
        typer.echo(
            f"warning: {loaded.path}: {counts}; what cannot be used is left out (--strict stops there).", err=True
        )
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)


def load_all(paths: list[Path], format: str, images: Path | None, splits: list[str], strict: bool) -> list[Query]:
    """The queries of several data files, each a split where `splits` names them; UserError where they share an id."""
    if splits and len(splits) != len(paths):
        raise UserError(
            f"there are {len(paths)} data files but {len(splits)} --split names; give one for each or none."
        )
    names: list[str | None] = [*splits] or [None] * len(paths)
    loaded = [load_queries(path, format, images, name, strict) for path, name in zip(paths, names, strict=True)]
    queries = [query for several in loaded for query in several]
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise UserError(
                f"two data files hold a query {query.id!r}; evaluate them apart, or give the rows other ids."
            )
        seen.add(query.id)
    return queries


def pooled_name(queries: Iterable[Query]) -> str:
    """What records call the data of these queries: the name of each data file once, in order, joined by "+"."""
    return "+".join(dict.fromkeys(query.data for query in queries))


def read_variants(paths: list[Path], queries: list[Query]) -> list[Variant]:
    """The variants of these queries; UserError where a file holds those of other data, or one is there twice."""
    by_id = {query.id: query for query in queries}
    variants: list[Variant] = []
    for path in paths:
        variants += _read_file(path)
    rows: set[tuple[str, str, int]] = set()
    for variant in variants:
        origin = by_id.get(variant.origin.id)
        if origin is None or origin.question != variant.origin.question:
            raise UserError(
                f"the variants were made from other data: their question {variant.origin.id!r} is not in the data "
                "files given; give the files that were attacked."
            )
        rows.add((variant.origin.id, variant.attack, variant.shot))
    if len(rows) < len(variants):
        raise UserError("the files of variants repeat one another; give each file and each attack once.")
    # Pictures and labels come from the checked data alone: a file of variants could name any picture.
    return [variant.model_copy(update={"origin": by_id[variant.origin.id]}) for variant in variants]


def _read_file(path: Path) -> list[Variant]:
    """Every line of the file; unlike a log, it has no torn last line that may be left out."""
    from pydantic import ValidationError

    from unmirage.schema import Variant

    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it with `unmirage attack`.") from error
    variants = []
    for number, line in enumerate(lines, start=1):
        try:
            variants.append(Variant.model_validate_json(line))
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(
                f"{path}, line {number} (counting from 1): {why}; make the file again with `unmirage attack`."
            ) from error
    if not variants:
        raise UserError(f"{path} holds no variants; make it again with `unmirage attack`.")
    return variants
