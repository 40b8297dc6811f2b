"""People label a sample of a run's answers, blind; two people's labels become the file that a judge is measured on.

- `sample` draws the answers, `session` keeps one person's labels, `terminal` and `server` ask for them.
- `merge` sets two people's labels against each other and settles what they disagree on.
- `commands` is part of the command line.
"""
