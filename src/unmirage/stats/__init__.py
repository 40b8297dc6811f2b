"""Statistics: intervals for rates and means, paired tests, corrections for many tests.

Pure functions on numbers: no files, no records. Each says its formula and where it comes from.
"""

from __future__ import annotations

from unmirage.stats.changes import Change, paired_change, sign_flip
from unmirage.stats.checks import Interval
from unmirage.stats.clusters import cluster_bootstrap, clustered_difference, clustered_mean, clustered_rate
from unmirage.stats.inferiority import NonInferiority, Standing, non_inferiority
from unmirage.stats.judging import cohen_kappa, rogan_gladen, weighted_kappa
from unmirage.stats.many import benjamini_hochberg, holm
from unmirage.stats.pairs import mcnemar_exact, paired_difference, tango
from unmirage.stats.rates import bounds, effective_number, mean_over_seeds, weighted_rate, wilson

__all__ = [
    "Change",
    "Interval",
    "NonInferiority",
    "Standing",
    "benjamini_hochberg",
    "bounds",
    "cluster_bootstrap",
    "clustered_difference",
    "clustered_mean",
    "clustered_rate",
    "cohen_kappa",
    "effective_number",
    "holm",
    "mcnemar_exact",
    "mean_over_seeds",
    "non_inferiority",
    "paired_change",
    "paired_difference",
    "rogan_gladen",
    "sign_flip",
    "tango",
    "weighted_kappa",
    "weighted_rate",
    "wilson",
]
