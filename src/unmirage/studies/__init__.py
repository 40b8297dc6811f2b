"""Results over seeds and settings: tables and pictures in documents, made from result files; the sandbox's own studies.

A document holds blocks (`blocks`) that say in a few lines (`specs`) what to show; `fill` replaces what is between by
what the records (`results`) say, summed up over seeds (`seeds`), as Markdown tables (`tables`) or drawn (`lines`,
`heat`). Nothing heavy is imported here: the command line reads this package's `commands` whatever the verb.
"""
