"""Conditions on runs, such as "task.queries == 16 and model == 'mamba'".

They are Python's expressions, read with its own parser and turned into conditions on a table;
nothing is ever called or looked up but the table's columns.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from recall_arena.cli.command import Mistake
from recall_arena.names import unknown

LONGEST = 1000

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.And: operator.and_,
    ast.Or: operator.or_,
    ast.Is: lambda value, none: value.is_null(),
    ast.IsNot: lambda value, none: value.is_not_null(),
    ast.In: lambda value, several: value.is_in(several),
    ast.NotIn: lambda value, several: ~value.is_in(several),
}


def where(table: pl.DataFrame, condition: str) -> pl.DataFrame:
    """The rows of a table that meet a condition; raises Mistake for one that cannot be meant."""
    if len(condition) > LONGEST:
        raise Mistake(f"--where has {len(condition)} characters, and may have {LONGEST}")
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        return table.filter(_expression(tree, table.columns))
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        raise Mistake(f"--where {condition!r} is no condition ({error})") from None
    except (PolarsError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise Mistake(f"--where {condition!r} does not fit the runs ({reason})") from None


def column(name: str, columns: list[str]) -> pl.Expr:
    """A column by name; raises Mistake that names the nearest if there is none."""
    if name not in columns:
        raise Mistake(unknown("column", name, columns))
    return pl.col(name)


def _expression(node: ast.expr, columns: list[str]) -> pl.Expr:
    match node:
        case ast.Name() | ast.Attribute():
            return column(_dotted(node), columns)
        case ast.Constant(value=str() | int() | float() as value):  # bool is an int
            return pl.lit(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_expression(operand, columns)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_expression(operand, columns)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_expression(left, columns), _expression(right, columns))
        case ast.BoolOp(op=op, values=values):
            first, *others = (_expression(value, columns) for value in values)
            for other in others:
                first = _BINARY[type(op)](first, other)
            return first
        case ast.Compare():
            return _comparison(node, columns)
    raise ValueError(f"{ast.unparse(node)!r} may not stand in it")


def _comparison(node: ast.Compare, columns: list[str]) -> pl.Expr:
    """A chain such as 1 < x <= 2: every neighbouring pair compared."""
    sides = [node.left, *node.comparators]
    pairs = []
    for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
        other: Any
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise ValueError("`is` is for None alone")
            other = None
        elif isinstance(op, ast.In | ast.NotIn):
            other = ast.literal_eval(right)
            if not isinstance(other, list | tuple):
                raise ValueError("`in` needs a list such as (1, 2)")
            other = list(other)
        else:
            other = _expression(right, columns)
        pairs.append(_BINARY[type(op)](_expression(left, columns), other))
    return pl.all_horizontal(pairs)


def _dotted(node: ast.expr) -> str:
    """The name that an expression of names and dots spells."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=name):
            return f"{_dotted(inner)}.{name}"
    raise ValueError(f"{ast.unparse(node)!r} is no name of a column")
