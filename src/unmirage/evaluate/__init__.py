"""Ask, judge, measure: one model, in one run folder."""

from unmirage.evaluate.measure import measure
from unmirage.evaluate.run import Evaluation, evaluate, rejudge

__all__ = ["Evaluation", "evaluate", "measure", "rejudge"]
