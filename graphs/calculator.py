"""A calculator that a model may be handed: arithmetic only, evaluated from the syntax tree, bounded in size and time.

Nothing is ever passed to `eval`. Every intermediate value is checked: `9**9**9` is a short text and a long wait.
"""

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from langchain_core.tools import StructuredTool, ToolException

Number = int | float

MAX_LENGTH: Final = 200
"""Longest expression in characters; it also bounds how deep the tree can be."""
MAX_BITS: Final = 512
"""Largest whole number in bits (about 154 decimal digits); no intermediate value may be larger."""
MAX_FACTORIAL: Final = 90
MAX_DIGITS: Final = 15


class CalculatorError(ValueError):
    """The expression is not arithmetic, is undefined, or is too large; the message may be shown to anybody."""


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression such as `2 * (3 + 4)` or `sqrt(2)`; `^` means power.

    Raises:
        CalculatorError: on anything but arithmetic, on division by zero, and when a value would outgrow the bounds.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculatorError(f"The expression is longer than {MAX_LENGTH} characters.")
    text = expression.replace("^", "**").replace("×", "*").replace("÷", "/").strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculatorError("This is not an arithmetic expression.") from None
    try:
        return _value(tree.body)
    except ZeroDivisionError:
        raise CalculatorError("Division by zero is not defined.") from None
    except OverflowError:
        raise CalculatorError("The result is too large.") from None
    except RecursionError:
        raise CalculatorError("The expression is nested too deeply.") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise CalculatorError("Only numbers can be calculated with.")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_binary(op, _value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_call(name, [_value(arg) for arg in args]))
        case _:
            raise CalculatorError(f"`{ast.unparse(node)[:40]}` is not something the calculator knows.")


def _call(name: str, values: list[Number]) -> Number:
    try:
        value: Number = _FUNCTIONS[name](*values)
    except CalculatorError:
        raise
    except (TypeError, ValueError):
        # The message of `math` differs between Python versions; ours names the function and nothing else.
        raise CalculatorError(f"`{name}` is not defined for these arguments.") from None
    return value


def _bounded(value: Number | complex) -> Number:
    if isinstance(value, complex):
        raise CalculatorError("The result is not a real number.")
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise CalculatorError("The result is too large.")
    elif not math.isfinite(value):
        raise CalculatorError("The result is not a finite number.")
    return value


def _binary(op: ast.operator, left: Number, right: Number) -> Number | complex:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return left // right
        case ast.Mod():
            return left % right
        case ast.Pow():
            return _power(left, right)
        case _:
            raise CalculatorError("The calculator knows + - * / // % and ** (or ^).")


def _power(base: Number, exponent: Number) -> Number | complex:
    # Decided before the power is computed: afterwards would be too late.
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > 2 * MAX_BITS:
        raise CalculatorError("The result is too large.")
    return base**exponent


def _factorial(n: Number) -> Number:
    if not isinstance(n, int) or n > MAX_FACTORIAL:
        raise CalculatorError(f"`factorial` takes whole numbers up to {MAX_FACTORIAL}.")
    return math.factorial(n)


def _round(value: Number, digits: Number = 0) -> Number:
    # `round(1, -10**9)` computes ten to the power of a billion.
    if not isinstance(digits, int) or abs(digits) > MAX_DIGITS:
        raise CalculatorError(f"`round` takes at most {MAX_DIGITS} digits.")
    return round(value, digits) if digits else round(value)


_CONSTANTS: Final[Mapping[str, float]] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "exp": math.exp,
    "factorial": _factorial,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}


def _calculate(expression: str) -> str:
    """Calculate an arithmetic expression, for example `17 * 23`, `2^10` or `sqrt(2) + pi`."""
    try:
        value = evaluate(expression)
    except CalculatorError as error:
        raise ToolException(str(error)) from None
    return f"{expression.strip()} = {value if isinstance(value, int) else format(value, '.12g')}"


calculator = StructuredTool.from_function(func=_calculate, name="calculator", handle_tool_error=True)
"""The tool. A bad expression comes back to the model as an error message; it does not end the run."""
