"""Attacks: variants of a query that differ from it in exactly one word, and searches for one that breaks a model.

edits.py, paraphrases.py    transformations
constraints.py, grammar.py  what an edit may not do
controls.py, words.py       neutral words at the same place; which words are tried
goals.py                    when an attack has reached what it is after
static.py                   variants without asking a model, the swap of opening words among them
search/                     the model is asked which edit breaks it, and for which questions none does
"""

from unmirage.attacks.static import Made, OneWordAttack, one_word_variants, substitute_first_word

__all__ = ["Made", "OneWordAttack", "one_word_variants", "substitute_first_word"]
