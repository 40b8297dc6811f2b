"""From scores to predicted refusals: the threshold, and how far predictions agree with real answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unmirage.audit.model.contrast import kappa
from unmirage.stats import Interval, wilson

ENOUGH_AGREEMENT, ENOUGH_KAPPA = 0.9, 0.6
"""Below either, predictions are not used: 0.6 is where Landis and Koch (1977) begin to call agreement substantial."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold on the score, and its agreement with verdicts on answers that did not choose it."""

    threshold: float
    fitted_on: int
    agreement: Interval
    kappa: float | None
    refused: float

    @property
    def good(self) -> bool:
        """Whether predictions may stand for answers."""
        return self.agreement.value >= ENOUGH_AGREEMENT and (self.kappa or 0.0) >= ENOUGH_KAPPA

    @property
    def why(self) -> str:
        """One sentence on whether predictions are used, with the figures that decide it."""
        if self.kappa is None:
            return "On the answers held out, score and judge both say one thing only, which shows no agreement."
        figures = (
            f"agreement {self.agreement.value:.3f}, kappa {self.kappa:.2f}, on {self.agreement.n} answers held out"
        )
        needed = f"at least {ENOUGH_AGREEMENT} and {ENOUGH_KAPPA} are needed"
        return f"The score predicts refusals well enough: {figures} ({needed})." if self.good else (
            f"The score does not predict refusals well enough: {figures} ({needed})."
        )  # fmt: skip


def calibrate(
    fit: Sequence[tuple[float, bool]], held_out: Sequence[tuple[float, bool]]
) -> Calibration | None:  # fmt: skip
    """The threshold that is right most often on `fit`, tried on `held_out`; pairs of score and refusal.

    None where either is empty.
    """
    if not fit or not held_out:
        return None
    cut = best_threshold([score for score, _ in fit], [refused for _, refused in fit])
    said = [score > cut for score, _ in held_out]
    truth = [refused for _, refused in held_out]
    right = wilson(sum(a == b for a, b in zip(said, truth, strict=True)), len(truth))
    return Calibration(cut, len(fit), right, kappa(said, truth), sum(truth) / len(truth))


def best_threshold(scores: Sequence[float], refused: Sequence[bool]) -> float:
    """The midpoint between two neighbouring scores above which "refused" is right most often; ties: the widest gap."""
    pairs = sorted(zip(scores, refused, strict=True))
    right = sum(refused)  # everything above: all refusals are found
    best = (right, 0.0, pairs[0][0] - 1.0)
    for (low, was), (high, _) in zip(pairs, [*pairs[1:], (pairs[-1][0] + 2.0, False)], strict=True):
        right += -1 if was else 1
        if high > low:
            best = max(best, (right, high - low, (low + high) / 2))
    return best[2]
