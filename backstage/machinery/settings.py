"""Dataclasses that check their fields and say what is wrong in one sentence."""

import functools

import numpy as np
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass


def settings(cls: type) -> type:
    """A frozen dataclass that takes no field for another type, and no NaN or infinity.

    Ranges are declared where the field is, as ``Annotated[float, Field(ge=0)]``. NumPy's numbers
    are as welcome as Python's. A wrong field is a ValueError with its name, its value and what is
    allowed.
    """
    config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
    cls = dataclass(cls, frozen=True, config=config)
    checked = cls.__init__

    @functools.wraps(checked)
    def __init__(self, *args, **fields):
        args, fields = [_plain(v) for v in args], {k: _plain(v) for k, v in fields.items()}
        try:
            checked(self, *args, **fields)
        except ValidationError as error:
            raise ValueError(" ".join(map(_sentence, error.errors()))) from None

    cls.__init__ = __init__
    return cls


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _sentence(error: dict) -> str:
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    if error["type"] == "value_error":  # raised by the class itself, which names what it means
        return f"{message}."
    message = message.replace("Input should be", "it should be")
    return f"{error['loc'][0]} = {error['input']!r}: {message[0].lower()}{message[1:]}."
