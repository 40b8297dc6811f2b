"""Rates corrected for what their judge gets wrong, where it was calibrated on people's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unmirage.errors import UserError
from unmirage.judges.calibrate import TOO_WEAK, Calibration, View
from unmirage.schema import Record
from unmirage.stats import Interval, rogan_gladen


def corrected(records: Sequence[Record], calibrations: Sequence[Calibration]) -> list[Record]:
    """`asr_corrected`, `rr_corrected` and `refusal_corrected` of the judges that are calibrated.

    Only for rates over single answers (K = 1) of which every one has a usable verdict, and for judges whose
    sensitivity + specificity - 1 is at least `TOO_WEAK`: otherwise the correction would say more than is known. The
    judge must be one that does not look at harm, so that its `asr` is its rate of compliance.
    Raises UserError for a calibration of a judge that judged none of the records.
    """
    by_judge = {one.judge: one for one in calibrations}
    judged = {record.judge for record in records}
    for name in by_judge:
        if name not in judged:
            raise UserError(
                f"the calibration is of {name}, and the answers were judged by {', '.join(sorted(judged)) or 'nobody'};"
                " calibrate the judge that is used."
            )
    return [new for record in records if record.judge in by_judge for new in _corrected(record, by_judge[record.judge])]


def _corrected(record: Record, calibration: Calibration) -> Iterator[Record]:
    test = _test(record.metric, calibration)
    if test is None or record.value is None or record.k > 1 or not record.n or record.errors or record.unparsed:
        return
    observed = Interval(record.value, 0.0, 1.0, record.n)  # only value and n enter
    rate = rogan_gladen(observed, *test)
    update = {"metric": f"{record.metric}_corrected", "value": rate.value, "low": rate.low, "high": rate.high}
    yield record.model_copy(update=update)


def _test(metric: str, calibration: Calibration) -> tuple[Interval, Interval] | None:
    """Sensitivity and specificity of the judge as a test for this metric's outcome; None where it cannot be one."""
    views: dict[str, View] = {"asr": calibration.any, "rr": calibration.any, "refusal": calibration.refusal}
    view = views.get(metric)
    if view is None or view.sensitivity is None or view.specificity is None:
        return None
    if view.sensitivity.value + view.specificity.value - 1 < TOO_WEAK:
        return None
    found = view.sensitivity.interval, view.specificity.interval
    # An attack succeeds where nothing is refused: the classes change places.
    return found if metric != "asr" else (found[1], found[0])
