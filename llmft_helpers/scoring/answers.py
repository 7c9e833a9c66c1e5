"""What a model's raw answer looks like: code only or chat, parses or not, restates its prompt or not."""

import ast
import re

FENCE = re.compile(r"```(?:python3?|py)?[ \t\r]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
FIRST_LINE = re.compile(r"class \w+\s*[(:]|import \w|from [\w.]+ import\b|def \w+\s*\(|@\w")
ECHO_WORDS = 8


def extract_code(answer: str) -> str:
    """The first fenced block, else the answer from its first line that opens a class, a function or an import.

    A fair reading for a model that explains itself: prose before the code is dropped, and so is a tail (prose, or a
    last statement cut off) that keeps the rest from parsing.
    """
    fenced = FENCE.search(answer)
    lines = (fenced.group(1) if fenced else answer).strip("\n").split("\n")
    if not fenced:
        lines = lines[next((i for i, line in enumerate(lines) if FIRST_LINE.match(line)), 0) :]
    for end in range(len(lines), 0, -1):
        candidate = "\n".join(lines[:end])
        if parses(candidate):
            return candidate.rstrip()
    return "\n".join(lines)


def parses(code: str) -> bool:
    try:
        return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def prompt_echo(prompt: str, answer: str, own: str = "") -> bool:
    """Whether the answer restates the prompt: eight of its words in a row that `own` (the reference) does not need."""
    asked, needed = _runs(prompt), _runs(own)
    return any(run in asked and run not in needed for run in _runs(answer))


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + ECHO_WORDS]) for i in range(len(words) - ECHO_WORDS + 1)}


def describe_code(answer: str, prompt: str, row: dict) -> dict[str, bool]:
    """What is true of one raw answer to a programming problem.

    `code_only`: the whole answer is Python as it stands; `parses`: what `extract_code` finds in it is;
    `type_hints`: the entry point annotates its arguments and its result.
    """
    code = extract_code(answer)
    method = _entry_point(code, row["entry_point"].removeprefix("Solution().")) if parses(code) else None
    return {
        "parses": parses(code),
        "defines_entry_point": method is not None,
        "type_hints": method is not None and _is_typed(method),
        "code_only": parses(answer),
        "prompt_echo": prompt_echo(prompt, answer, row.get("starter_code", "") + row.get("completion", "")),
    }


def _entry_point(code: str, name: str) -> ast.FunctionDef | None:
    """The method `name` of class Solution, or the plain function of that name."""
    body = ast.parse(code).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    for node in classes[-1].body if classes else body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _is_typed(method: ast.FunctionDef) -> bool:
    arguments = [argument for argument in method.args.args if argument.arg != "self"]
    return method.returns is not None and all(argument.annotation is not None for argument in arguments)
