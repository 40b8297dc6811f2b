"""Attacks: variants of a query that differ from it in exactly one word."""

from unmirage.attacks.one_word import Substitution, substitute_first_word

__all__ = ["Substitution", "substitute_first_word"]
