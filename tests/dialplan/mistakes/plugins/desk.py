"""The plugin that the lines with mistakes name."""

from pydantic import BaseModel

NAME = "desk"
SUMMARY = "Knows the hours of a desk."
API = 1


class Values(BaseModel):
    """What a line can set."""

    hours: int = 8
