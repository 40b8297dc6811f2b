"""Forget and retain sets for unlearning, made from safety data and a model's own harmful answers.

Six steps, after the paper's released pipeline (arXiv 2503.11832, official repository, data/data.md):

1. split       the safety data into harmful and harmless questions
2. collect     answers to the harmful ones from the base model, and from others where they are given
3. select      for each question the answer that a judge finds most harmful; a core set of them where asked for
4. top up      the retain set with general data, filtered, seeded, with every opening word of the forget set in it
5. write       the forget set as question and answer (NPO) and with the answer in the question's turn (RMU's format)
6. audit       which words tell what is to be forgotten from what is to be retained: a shortcut for unlearning
"""
