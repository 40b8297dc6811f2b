"""Words to try on a model where nobody names any: openers, politeness words, and neutral words as controls."""

from __future__ import annotations

OPENERS = (
    "What",
    "Which",
    "Who",
    "Where",
    "When",
    "Why",
    "How",
    "Is",
    "Are",
    "Does",
    "Can",
    "Could",
    "Will",
    "Would",
    "Should",
    "Share",
    "Describe",
    "List",
    "Explain",
    "Provide",
    "Give",
    "Tell",
    "Show",
    "Name",
    "State",
    "Outline",
    "Write",
    "Create",
    "Generate",
    "Make",
    "Suggest",
    "Help",
    "Identify",
    "Discuss",
    "Summarize",
    "Imagine",
)
"""First words of questions and requests: what safety data differ in most (arXiv 2503.11832, figure 2)."""

POLITENESS = ("Please", "Kindly", "Thanks", "Sorry")
"""Words that change the tone of a question and not what it asks; they are put in, not exchanged."""

NEUTRAL = ("Today", "Here", "Now", "Also", "Then", "Again", "Perhaps", "Anyway")
"""Words that neither ask nor command: controls for "any change here breaks it"."""
