"""YAML as all rooms read it: whatever the parser dies of is one sentence."""

from __future__ import annotations

from typing import Any


def read_yaml(text: str) -> Any:
    """The values that a text holds; raises ValueError, in one line, where it is not YAML.

    Not all that the parser raises is a YAMLError: a date that there is not is a ValueError, and what is nested too
    deep a RecursionError.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
