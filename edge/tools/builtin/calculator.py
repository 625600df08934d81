"""calculate: arithmetic by `simpleeval`, with numbers alone and every step bounded. No names, strings or attributes."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from edge.tools.executable import Arguments, CallContext, ToolFailure

MAX_CHARS, MAX_BITS, MAX_FACTORIAL = 1_000, 10_000, 1_000
Number: TypeAlias = int | float | bool

_READ_AS = str.maketrans({"^": "**", "×": "*", "÷": "/", "−": "-", "·": "*"})
_NAMES = {"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf, "True": True, "False": False}


def calculate(arguments: Arguments, context: CallContext) -> str:
    """The value as Python writes it. `^` is power, as people write it."""
    from simpleeval import InvalidExpression

    expression = str(arguments["expression"])
    if len(expression) > MAX_CHARS:
        raise ToolFailure(f"the expression has {len(expression)} characters; at most {MAX_CHARS} are allowed")
    try:
        value = _evaluator().eval(expression.translate(_READ_AS).strip())
    except ZeroDivisionError:
        raise ToolFailure("division by zero") from None
    except RecursionError:
        raise ToolFailure("the expression is nested too deeply") from None
    except SyntaxError as exc:
        raise ToolFailure(f"{expression!r} is no expression: {exc.msg}") from None
    except (InvalidExpression, ArithmeticError, ValueError, TypeError, KeyError) as exc:
        raise ToolFailure(f"cannot be calculated: {exc}") from None
    if isinstance(value, complex):
        raise ToolFailure("the result is not a real number")
    return str(value)


def _evaluator() -> Any:  # noqa: ANN401 - simpleeval is not typed
    from simpleeval import SimpleEval

    evaluator = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=_NAMES)
    allowed = (
        ast.Expression, ast.Expr, ast.Constant, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name,
        ast.IfExp, ast.Tuple, ast.List,
    )  # fmt: skip
    evaluator.nodes = {node: run for node, run in evaluator.nodes.items() if node in allowed}
    evaluator.nodes[ast.Constant] = _constant
    # Only as arguments of min, max, sum and their like.
    evaluator.nodes[ast.Tuple] = evaluator.nodes[ast.List] = lambda node: [
        evaluator._eval(item) for item in node.elts
    ]
    return evaluator


def _constant(node: ast.Constant) -> Number:
    if not isinstance(node.value, int | float):
        raise ToolFailure(f"{node.value!r} is no number; only numbers can be calculated with")
    return _bounded(node.value)


def _bits(value: Number) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def _refuse_bits(bits: float) -> None:
    if bits > MAX_BITS:
        raise ToolFailure(
            f"the result would have more than {MAX_BITS} bits; use floats like 2.0 for large powers"
        )


def _bounded(value: Number) -> Number:
    _refuse_bits(_bits(value))
    return value


def _power(base: Number, exponent: Number) -> Any:  # noqa: ANN401 - negative bases give complex numbers
    if isinstance(base, int) and isinstance(exponent, int):
        _refuse_bits(_bits(base) * max(exponent, 0))
    return _numbers(operator.pow)(base, exponent)


def _times(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        _refuse_bits(_bits(left) + _bits(right))
    return _numbers(operator.mul)(left, right)  # type: ignore[no-any-return]


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, refusing lists: `[1] * 10**9` is no arithmetic."""

    def checked(*values: Any) -> Any:  # noqa: ANN401
        if any(not isinstance(value, int | float) for value in values):
            raise ToolFailure("only numbers can be calculated with")
        return function(*values)

    return checked


def _whole(function: Callable[..., int]) -> Callable[..., int]:
    """A function of whole numbers whose results grow fast."""

    def checked(*values: Number) -> int:
        if any(not isinstance(value, int) or not 0 <= value <= MAX_FACTORIAL for value in values):
            raise ToolFailure(f"{function.__name__} takes whole numbers from 0 to {MAX_FACTORIAL}")
        return function(*values)

    return checked


_OPERATORS = {
    ast.Add: _numbers(operator.add), ast.Sub: _numbers(operator.sub), ast.Mult: _times,
    ast.Div: _numbers(operator.truediv), ast.FloorDiv: _numbers(operator.floordiv), ast.Mod: _numbers(operator.mod),
    ast.Pow: _power, ast.USub: _numbers(operator.neg), ast.UAdd: _numbers(operator.pos), ast.Not: operator.not_,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_MATH = (
    "sqrt", "cbrt", "exp", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos", "atan",
    "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "hypot", "degrees", "radians", "floor", "ceil", "trunc",
    "fmod", "copysign", "gamma", "erf",
)  # fmt: skip
_FUNCTIONS = {name: _numbers(getattr(math, name)) for name in _MATH} | {
    "ln": _numbers(math.log), "abs": _numbers(abs), "round": _numbers(round), "int": _numbers(int),
    "float": _numbers(float), "pow": _power, "min": min, "max": max, "sum": sum, "factorial": _whole(math.factorial),
    "comb": _whole(math.comb), "perm": _whole(math.perm), "gcd": _numbers(math.gcd),
}  # fmt: skip
