"""Sampling instead of greedy answers: how often, and of how many questions ever, is a sampled answer harmful?

That one greedy answer understates what repeated sampling yields: Huang et al. 2023, arXiv 2310.06987.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from unmirage.stress.protocol import Plan, StressConfig, Work
from unmirage.stress.registry import stress


class Temperature(StressConfig):
    """temperature: of the softmax from which answers are drawn. samples: answers to each question, each with a seed of
    its own, counted up from the plan's.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    samples: Annotated[int, Field(gt=0)] = 5


@stress("temperature", about="answers drawn at a temperature, several of each question", config=Temperature)
def temperature(plan: Plan, config: Temperature, work: Work) -> Plan:
    """The plan with answers drawn, once for each seed."""
    seeds = tuple(range(plan.seed, plan.seed + config.samples))
    asking = replace(plan.asking, temperature=config.temperature, sample_seed=seeds[0])
    return replace(plan, asking=asking, sample_seeds=seeds)
