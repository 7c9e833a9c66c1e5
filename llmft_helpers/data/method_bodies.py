"""A problem as unfinished code: its statement as docstring under the signature, so that the answer is the body."""

import ast
import re
import textwrap


def signature(starter_code: str) -> tuple[str, str] | None:
    """(starter code up to its one open `def`, the indentation of that method's body); None for any other starter."""
    starter = starter_code.strip("\n").rstrip()
    last = starter.split("\n")[-1]
    if not last.endswith(":") or len(re.findall(r"^\s*def ", starter, re.MULTILINE)) != 1:
        return None
    opening = next(line for line in starter.split("\n") if re.match(r"\s*def ", line))
    indent = " " * (len(opening) - len(opening.lstrip()) + 4)
    return (starter, indent) if parsed(f"{starter}\n{indent}pass") else None


def docstring(statement: str, indent: str) -> str:
    """The statement as a docstring, raw where a backslash would mean something else."""
    text = statement.replace('"""', "'''")
    opening = f'{indent}r"""' if "\\" in text else f'{indent}"""'
    return f'{opening}\n{textwrap.indent(text, indent)}\n{indent}"""'


def body(starter_code: str, completion: str, entry_point: str) -> str | None:
    """What stands under the signature in a whole solution, its other definitions after it; None where the solution
    does not fit under this signature (other parameters, one line).
    """
    head, tree = signature(starter_code), parsed(completion)
    if head is None or tree is None:
        return None
    starter, indent = head
    wanted = _method(parsed(f"{starter}\n{indent}pass"), entry_point)
    owner, method = _owner(tree, entry_point), _method(tree, entry_point)
    if not wanted or not method or _names(wanted) != _names(method) or method.decorator_list:
        return None
    lines = completion.split("\n")
    written = textwrap.dedent("\n".join(lines[_first_line(method, lines) : method.end_lineno]))
    parts = [textwrap.indent(written, indent)]
    if owner is not tree:
        others = [node for node in owner.body if node is not method]
        parts += ["\n" + textwrap.indent(textwrap.dedent(_source(node, lines)), indent[:-4]) for node in others]
    parts += ["\n\n" + _source(node, lines) for node in tree.body if node is not owner and node is not method]
    text = "\n".join(parts)
    return text if _same_method(parsed(f"{starter}\n{text}"), method, entry_point) else None


def parsed(code: str) -> ast.Module | None:
    """None for what is no Python."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _owner(tree: ast.Module, entry_point: str) -> ast.Module | ast.ClassDef:
    """The class Solution, or the module for a plain function."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    return classes[-1] if classes else tree


def _method(tree: ast.Module, entry_point: str) -> ast.FunctionDef | None:
    name = entry_point.removeprefix("Solution().")
    return next((n for n in _owner(tree, name).body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def _names(method: ast.FunctionDef) -> list[str]:
    """Of the parameters in order; a reference may type them otherwise than the starter code."""
    return [node.arg for node in ast.walk(method.args) if isinstance(node, ast.arg)]


def _first_line(method: ast.FunctionDef, lines: list[str]) -> int:
    """Index of the body's first line, its leading comments included; a docstring is not part of it."""
    statements = method.body
    if ast.get_docstring(method) is not None and len(statements) > 1:
        statements = statements[1:]
    first = _begin(statements[0])
    while first > method.lineno and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first


def _source(node: ast.stmt, lines: list[str]) -> str:
    return "\n".join(lines[_begin(node) : node.end_lineno])


def _begin(node: ast.stmt) -> int:
    """Index of a statement's first line, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1


def _same_method(tree: ast.Module | None, method: ast.FunctionDef, entry_point: str) -> bool:
    """Whether the solution put together again has the same statements in its method."""
    again = _method(tree, entry_point) if tree else None
    kept = method.body[1:] if ast.get_docstring(method) is not None and len(method.body) > 1 else method.body
    return again is not None and list(map(ast.dump, again.body)) == list(map(ast.dump, kept))
