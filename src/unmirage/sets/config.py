"""What a pair of sets is made from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class SetsConfig(BaseModel):
    """How forget and retain sets are made.

    subsets: which of the harmful questions are to be forgotten, by the data's own name for them; the paper takes those
    about unsafe pictures ("unsafes") alone, and None takes all. keep: answers to forget: "harmful", those that the
    judge finds harmful or compliant, or "all", also where every candidate refuses. core: share of the forget set that
    is kept; order: which ones, drawn at random or the most harmful first. retain: rows of the retain set in all.
    opener_rows: rows of the retain set, at least, for every opening word of the forget set; where the data have fewer,
    one-word twins of other rows are made. seed: of all that is drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subsets: tuple[str, ...] | None = None
    keep: Literal["harmful", "all"] = "harmful"
    core: Annotated[float, Field(gt=0, le=1)] = 1.0
    order: Literal["random", "harmful"] = "random"
    retain: Annotated[int, Field(ge=1)] = 2000
    opener_rows: Annotated[int, Field(ge=0)] = 10
    seed: Annotated[int, Field(ge=0)] = 0
