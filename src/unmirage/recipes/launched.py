"""One process of a training that `accelerate launch` started: `launched.py RECIPE.json OUT STEP`."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Trains the model of one step of a recipe, as the step itself would in a single process."""
    from unmirage.cli import run

    recipe, out, step = sys.argv[1:]
    sys.exit(run(lambda: _train(Path(recipe), Path(out), step)))


def _train(path: Path, out: Path, step: str) -> None:
    from unmirage.quiet import quiet_libraries
    from unmirage.recipes.config import Recipe
    from unmirage.recipes.graph import planned
    from unmirage.recipes.planning import steps_of
    from unmirage.recipes.run import job_of
    from unmirage.recipes.work import PARENT, train

    if parent := os.environ.get(PARENT):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    quiet_libraries()
    recipe = Recipe.model_validate_json(path.read_bytes())
    plan = planned(steps_of(recipe), out)
    train(job_of(recipe, plan[step], plan), lambda _title, _done, _steps: None)


def _end_with(parent: int) -> None:
    """Ends this process when the one that had it launched is gone: it would keep the GPU and the run folder."""
    while True:
        try:
            os.kill(parent, 0)
        except OSError:
            os._exit(1)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
