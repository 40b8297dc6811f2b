"""The roles that rows play in a loss, and how many samples a row of each has."""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["learn", "forget", "retain", "preference", "twins", "pairs", "spurious", "refuse"]
ROLES: tuple[Role, ...] = get_args(Role)
MADE: tuple[Role, ...] = ("twins", "pairs", "spurious", "refuse")
"""Roles whose rows are made of the data's by exchanging opening words."""
_DOUBLE = ("preference", "pairs")


def samples_of(role: str) -> int:
    """How many samples a row of the role has: a pair's two stand far apart, all first ones before all second ones."""
    return 2 if role in _DOUBLE else 1
