"""Kinds of values in a request's body, each taken as it was written.

Strict: a text or a truth that would be read as a number is somebody's mistake.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints


def _whole(value: Any) -> Any:
    """5.0 is a whole number to JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Short = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Number = Annotated[float, Field(strict=True)]
Truth = Annotated[bool, Field(strict=True)]
Fact = (
    Annotated[str, StringConstraints(max_length=512)] | bool | int | float
)  # OpenAI's are texts; an audience may count
