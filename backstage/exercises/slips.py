"""Ordinary slips, made in any right answer: a term or a call left out, another operator or set."""

import ast
import itertools
from collections.abc import Iterator

OTHER = {ast.Add: [ast.Sub, ast.Mult], ast.Sub: [ast.Add], ast.Mult: [ast.Div, ast.Add]}
OTHER |= {ast.Div: [ast.Mult], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd]}
OTHER_METHOD = {"sum": "mean", "mean": "sum", "var": "std", "std": "var"}
LIBRARIES = ("torch", "F", "np", "stats", "math")


def slips(text: str) -> Iterator[tuple[str, str]]:
    """Changes to a Python text: (old, new), each once."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        old = ast.get_source_segment(text, node)
        for new in _instead(node):
            found[old, new] = None
    yield from found


def _instead(node: ast.AST) -> Iterator[str]:
    """What might stand in its place."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
        left, right = node.left, node.right
        others = [ast.BinOp(left, other(), right) for other in OTHER[type(node.op)]]
        yield from map(ast.unparse, (left, right, *others))
        if isinstance(node.op, ast.Sub | ast.Div):
            yield ast.unparse(ast.BinOp(right, node.op, left))
        if isinstance(node.op, ast.Div):
            one_less = ast.BinOp(right, ast.Sub(), ast.Constant(1))
            yield ast.unparse(ast.BinOp(left, node.op, one_less))
        if isinstance(node.op, ast.Mult):
            yield from (f"{ast.unparse(side)} * {ast.unparse(node)}" for side in (left, right))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        library = isinstance(node.func.value, ast.Name) and node.func.value.id in LIBRARIES
        yield from map(ast.unparse, node.args[:1] if library else [node.func.value])
        if other := OTHER_METHOD.get(node.func.attr):
            func = ast.Attribute(node.func.value, other)
            yield ast.unparse(ast.Call(func, node.args, node.keywords))
    elif isinstance(node, ast.Tuple) and all(isinstance(e, ast.Constant) for e in node.elts):
        dims = tuple(e.value for e in node.elts)  # that are averaged over
        sets = (c for n in range(1, 5) for c in itertools.combinations(range(5), n))
        yield from (str(s) for s in sets if s != dims and max(s) <= max(3, *dims))
