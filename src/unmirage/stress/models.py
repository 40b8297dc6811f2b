"""Changed weights as a checkpoint folder that anything can load, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from unmirage.backends.checkpoint import load_checkpoint
from unmirage.errors import UserError
from unmirage.runs import write_json
from unmirage.stress.protocol import Work

MODEL = "model"
_WHOLE = "made.json"


def made_model(work: Work, start: Path, make: Callable[[Path], Mapping[str, Any]]) -> Path:
    """The folder of the model that `make` writes into the folder it is given; made anew where a kill left half of it.

    What `make` returns is kept beside it. Says where the weights are those of `start`; raises UserError where they
    hold values that are no numbers, as answers would then tell nothing.
    """
    folder, whole = work.out / MODEL, work.out / _WHOLE
    if not whole.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        about = make(folder)
        write_json(whole, {"schema": 1, **about})
    check_made(work, start, folder)
    return folder


def check_made(work: Work, start: Path, folder: Path) -> None:
    """Whether a made model can stand for a stressed one, see `made_model`."""
    if broken := _not_finite(folder):
        raise UserError(
            f"{folder}: {broken[0]} and {len(broken) - 1} more weights of the stressed model hold values that are no "
            "finite numbers, so nothing can be said of its answers; choose milder settings."
        )
    if _same_weights(start, folder):
        work.note("the stressed model has the weights that the model had before; its figures are the same model's.")


def saved(model: Any, processor: Any, folder: Path) -> None:
    """Model and processor in the folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model, in evaluation mode on the CPU, and processor; an adapter is merged with its model."""
    model, processor = load_checkpoint(folder)
    return model.eval(), processor


def _not_finite(folder: Path) -> list[str]:
    from safetensors import safe_open

    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            values = ((name, weights.get_tensor(name)) for name in weights.keys())  # noqa: SIM118 -- no mapping
            found += [name for name, value in values if value.is_floating_point() and not value.isfinite().all()]
    return found


def _same_weights(one: Path, other: Path) -> bool:
    """Whether two folders hold equal weights of equal types, in however many files, whatever else lies beside them."""
    with ExitStack() as stack:
        mine, theirs = _opened(one, stack), _opened(other, stack)
        if mine.keys() != theirs.keys():
            return False
        return all(_equal(file.get_tensor(name), theirs[name].get_tensor(name)) for name, file in mine.items())


def _opened(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """The open file of each weight."""
    from safetensors import safe_open

    files = [stack.enter_context(safe_open(path, framework="pt")) for path in sorted(folder.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118 -- no mapping


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors have equal values and the same type."""
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
