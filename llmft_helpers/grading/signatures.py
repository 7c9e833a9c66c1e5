"""What a problem's own code says about its entry point, and JSON values as the types that are annotated there."""

import ast
import re
from collections.abc import Iterator

from .values import encode

# `def` headers of starter code, which have no body
HEADER = re.compile(r"^([ \t]*def \w+\([^\n]*?\)[^\n]*?:)[ \t]*$", re.MULTILINE)
NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right
"""  # as LeetCode's comments give them
DICTS = ("Dict", "dict", "DefaultDict", "defaultdict", "Counter", "OrderedDict", "Mapping")
Function = ast.FunctionDef


def own_code(row: dict) -> ast.Module:
    """The starter code, or the reference where that does not parse or defines nothing; empty without either."""
    starter, reference = (
        text if isinstance(text := row.get(key), str) else "" for key in ("starter_code", "completion")
    )
    for source in starter, HEADER.sub(r"\1 ...", starter), reference:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(isinstance(node, ast.ClassDef | Function) for node in tree.body):
            return tree
    return ast.Module([], [])


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def functions(body: list[ast.stmt]) -> dict[str, Function]:
    return {node.name: node for node in body if isinstance(node, Function)}


def _annotations(function: Function | None) -> list[ast.expr | None]:
    names = function.args.posonlyargs + function.args.args if function else []
    return [name.annotation for name in names if name.arg != "self"]


def first_parameter(function: Function) -> ast.expr | None:
    """Its annotation."""
    return next(iter(_annotations(function)), None)


def typed_arguments(values: list, function: Function | None) -> list:
    """Encoded arguments of a call, by the annotations of the function's parameters."""
    annotations = _annotations(function)
    return [typed(value, annotations[i] if i < len(annotations) else None) for i, value in enumerate(values)]


def typed(value: object, annotation: ast.expr | None) -> object:
    """A JSON value encoded as what its annotation names. ValueError if it cannot be that.

    A list stands for a ListNode, for a TreeNode (level by level, null for a missing child), a tuple or a set; a dict's
    keys become numbers if they are annotated so, and a list of pairs may stand for a dict.
    """
    name, inner = _read(annotation)
    if value is None:
        return None
    if not isinstance(value, list | dict):
        return encode(value)
    if name in DICTS:
        key, item = (*inner, None, None)[:2]
        pairs = value.items() if isinstance(value, dict) else value
        return {"t": "dict", "v": [[_typed_key(k, key), typed(v, item)] for k, v in pairs]}
    if isinstance(value, dict):
        return encode(value)
    if name == "TreeNode":
        return {"t": name, "v": [None if item is None else [encode(item)] for item in value]} if value else None
    items = [typed(item, kind) for item, kind in zip(value, _item_types(name, inner), strict=False)]
    if name == "ListNode":
        return {"t": name, "v": items} if value else None
    if name in ("Tuple", "tuple"):
        return {"t": "tuple", "v": items}
    if name in ("Set", "set", "FrozenSet", "frozenset"):
        return {"t": "set" if name.lower() == "set" else "frozenset", "v": items}
    return items


def _read(annotation: ast.expr | None) -> tuple[str, list[ast.expr]]:
    """(name, arguments) of an annotation, through Optional and strings: "List", [int]."""
    match annotation:
        case ast.Constant(value=str(text)):
            return _read(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _read(right if isinstance(left, ast.Constant) and left.value is None else left)
        case ast.Subscript(value=value, slice=part):
            name, inner = _read(value)[0], part.elts if isinstance(part, ast.Tuple) else [part]
            return _read(inner[0]) if name in ("Optional", "Union") else (name, inner)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name, []
    return "", []


def _item_types(name: str, inner: list[ast.expr]) -> Iterator[ast.expr | None]:
    """The annotations of a list's items, without end."""
    if name in ("Tuple", "tuple") and not any(isinstance(i, ast.Constant) and i.value is ... for i in inner):
        yield from inner
    first = inner[0] if inner and name != "ListNode" else None
    while True:
        yield first


def _typed_key(key: object, annotation: ast.expr | None) -> object:
    name = _read(annotation)[0]
    if isinstance(key, str) and name in ("int", "float"):
        return encode(int(key) if name == "int" else float(key))
    return typed(key, annotation)
