"""Computes a formula as a spreadsheet program does in an ordinary cell.

There, a minus sign in front binds tighter than ^, and arithmetic on a whole range is an error,
unless it stands within SUMPRODUCT or another function that takes arrays.
"""

import itertools
from collections.abc import Callable

import numpy as np
from openpyxl.formula import Tokenizer

from backstage.exercises.exercise import Unfit


class Wrong(str):
    """An error as a cell shows it, such as #VALUE!."""


LEVELS = [("=", "<>", "<", ">", "<=", ">="), ("+", "-"), ("*", "/"), ("^",)]  # loosest first
OPERATORS = {
    "=": np.equal, "<>": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal,
    ">=": np.greater_equal, "+": np.add, "-": np.subtract, "*": np.multiply,
    "/": np.true_divide, "^": np.power,
}  # fmt: skip

# ------------------------------------------------------------------------------- functions


def mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Population covariance."""
    return np.mean((a - np.mean(a)) * (b - np.mean(b)))


def sample(statistic: Callable) -> Callable:
    return lambda v: statistic(v, ddof=1) if np.size(v) > 1 else Wrong("#DIV/0!")


OF_NUMBERS = {  # of all the numbers in all the arguments; empty cells are left out
    "AVERAGE": np.mean, "SUM": np.sum, "COUNT": np.size, "COUNTA": np.size, "MAX": np.max,
    "MIN": np.min, "SUMSQ": lambda v: np.sum(v**2), "DEVSQ": lambda v: np.sum((v - v.mean()) ** 2),
    "VAR": sample(np.var), "VAR.S": sample(np.var), "VARA": sample(np.var),
    "VARP": np.var, "VAR.P": np.var, "VARPA": np.var,
    "STDEV": sample(np.std), "STDEV.S": sample(np.std), "STDEVA": sample(np.std),
    "STDEVP": np.std, "STDEV.P": np.std, "STDEVPA": np.std,
}  # fmt: skip
OF_VALUES = {
    "SQRT": np.sqrt,
    "POWER": np.power,
    "ABS": np.abs,
    "ROUND": lambda v, n=0: rounded(v, n),
}
OF_ARRAYS = {  # what is within their brackets is computed value by value; sizes have to agree
    "SUMPRODUCT": lambda *v: np.sum(np.prod(v, axis=0)),
    "SUMXMY2": lambda a, b: np.sum((a - b) ** 2),
    "COVAR": mean_product, "COVARIANCE.P": mean_product,
    "COVARIANCE.S": lambda a, b: mean_product(a, b) * np.size(a) / (np.size(a) - 1),
}  # fmt: skip
OF_SHAPES = {"ROWS": lambda v: np.shape(v)[0], "COLUMNS": lambda v: np.shape(v)[1]}
KNOWN = {*OF_NUMBERS, *OF_VALUES, *OF_ARRAYS, *OF_SHAPES, "IF"}


def rounded(value, digits):
    """Half away from 0, as spreadsheets round."""
    scaled = value * 10.0**digits
    return np.sign(scaled) * np.floor(np.abs(scaled) + 0.5 + 1e-9) / 10.0**digits


def called(name: str, args: list, arrays: bool):
    errors = [value for value in args if isinstance(value, Wrong)]
    if name == "IF":
        return chosen(*args)
    if errors:
        return errors[0]
    if name in OF_NUMBERS:
        numbers = np.concatenate([np.ravel(v) for v in args if not isinstance(v, str)])
        return checked(lambda: OF_NUMBERS[name](numbers[~np.isnan(numbers)]))
    if name in OF_SHAPES:
        return float(OF_SHAPES[name](np.atleast_2d(*args)))
    if name in OF_VALUES:
        return elementwise(OF_VALUES[name], args, arrays)
    if len({np.shape(value) for value in args}) > 1:
        return Wrong("#VALUE!" if name == "SUMPRODUCT" else "#N/A")
    return checked(lambda: OF_ARRAYS[name](*map(np.nan_to_num, args)))


def chosen(test, yes, no=False):
    """IF."""
    test = single(test)
    return test if isinstance(test, Wrong) else (yes if test else no)


def single(value):
    """The one value of a range of one cell; a range of more has none in an ordinary cell."""
    if isinstance(value, np.ndarray):
        return value.item() if value.size == 1 else Wrong("#VALUE!")
    return value


def elementwise(function: Callable, args: list, arrays: bool):
    args = args if arrays else [single(value) for value in args]
    errors = [value for value in args if isinstance(value, Wrong)]
    if errors:
        return errors[0]
    if any(isinstance(value, str) for value in args):
        return Wrong("#VALUE!")
    return checked(lambda: function(*(np.nan_to_num(value) * 1.0 for value in args)))


def checked(compute: Callable):
    """What is computed, or the error that a cell would show."""
    try:
        with np.errstate(all="ignore"):
            value = compute()
    except ValueError:  # sizes that do not go together, or no values
        return Wrong("#N/A")
    if isinstance(value, str):
        return value
    if np.all(np.isfinite(value)):
        return value
    return Wrong("#DIV/0!" if np.any(np.isinf(value)) else "#NUM!")


# ------------------------------------------------------------------------------ formulas


class Formula:
    """Reads a formula from left to right and computes it on the way."""

    def __init__(self, formula: str, cells: Callable, arrays: bool = False):
        self.formula, self.cells, self.arrays = formula, cells, arrays
        tokens = Tokenizer(formula).items
        self.tokens = [token for token in tokens if token.type != "WHITE-SPACE"]

    def value(self):
        found = self.level(0)
        if self.tokens:
            raise self.unreadable()
        return found

    def unreadable(self) -> Unfit:
        return Unfit(f"the formula {self.formula} cannot be read: is a bracket or a sign missing?")

    def level(self, k: int):
        """Operands between the operators of one level, from the left."""
        if k == len(LEVELS):
            return self.signed()
        found = self.level(k + 1)
        while self.tokens and self.is_next("OPERATOR-INFIX") and self.tokens[0].value in LEVELS[k]:
            operator = OPERATORS[self.tokens.pop(0).value]
            found = elementwise(operator, [found, self.level(k + 1)], self.arrays)
        return found

    def signed(self):
        """A minus sign is for what follows it at once: -A1^2 is (-A1)^2."""
        signs = list(itertools.takewhile(lambda t: t.type == "OPERATOR-PREFIX", self.tokens))
        del self.tokens[: len(signs)]
        found = self.operand()
        while self.is_next("OPERATOR-POSTFIX"):
            self.tokens.pop(0)
            found = elementwise(lambda v: v / 100, [found], self.arrays)
        if sum(sign.value == "-" for sign in signs) % 2:
            found = elementwise(np.negative, [found], self.arrays)
        return found

    def is_next(self, kind: str) -> bool:
        return bool(self.tokens) and self.tokens[0].type == kind

    def operand(self):
        if not self.tokens:
            raise self.unreadable()
        token = self.tokens.pop(0)
        if token.type == "OPERAND" and token.subtype == "RANGE":
            return self.cells(token.value)
        if token.type == "OPERAND" and token.subtype == "NUMBER":
            return float(token.value)
        if token.type == "OPERAND" and token.subtype == "TEXT":
            return token.value.strip('"')
        if token.type == "PAREN" and token.subtype == "OPEN":
            found = self.level(0)
            self.close()
            return found
        if token.type == "FUNC" and token.subtype == "OPEN":
            return self.function(token.value.rstrip("(").upper().removeprefix("_XLFN."))
        raise self.unreadable()

    def close(self) -> None:
        if not self.tokens or self.tokens.pop(0).subtype != "CLOSE":
            raise self.unreadable()

    def function(self, name: str):
        if name not in KNOWN:
            raise Unfit(f"the checker does not know {name}(): use means, sums, counts and squares.")
        outside, self.arrays = self.arrays, self.arrays or name in OF_ARRAYS
        args = [self.level(0)]
        while self.is_next("SEP"):
            self.tokens.pop(0)
            args.append(self.level(0))
        self.close()
        self.arrays = outside
        try:
            return called(name, args, self.arrays)
        except TypeError as error:
            raise Unfit(f"{name}() takes another number of arguments.") from error
