"""What is installed and works: packages, devices, a model, a server; and whether two backends answer alike."""

from __future__ import annotations

from unmirage.doctor.compare import Comparison, compare
from unmirage.doctor.finding import Finding, Section, State

__all__ = ["Comparison", "Finding", "Section", "State", "compare"]
