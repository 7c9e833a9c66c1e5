"""What a model's raw answer looks like: code only or chat, parses or not, restates its prompt or not."""

import ast
import doctest
import re
import textwrap

FENCE = re.compile(r"^(.*?)(`{3,}|~{3,})[ \t]*([^`~]*)$")  # what stands before it, the fence, its info string
FIRST_LINE = re.compile(r"class \w+\s*[(:]|import \w|from [\w.]+ import\b|(async )?def \w+\s*\(|@\w")
PROMPT = re.compile(r"^[ \t]*>>> ", re.MULTILINE)
ECHO_WORDS = 8
TRIES = 20  # ends of a block, starts of unfenced code: an answer that repeats itself holds thousands


def extract_code(answer: str, entry_point: str | None = None) -> str:
    """The program in an answer: all of it if it parses, else of its parts the last that defines the entry point.

    A fair reading for a model that explains itself. Parts are the fenced blocks (fences in pairs, dedented, without
    the prompts of an interpreter) and the text from each line that opens a class, a function or an import. A tail
    (prose, or a last statement cut off) that keeps a part from parsing is dropped, if no other part is whole.
    Without `entry_point`, as rows write it, any class or function counts.
    """
    whole = _dedent(answer)
    if parses(whole):
        return whole
    name = entry_point.rpartition(".")[2] if entry_point else None
    blocks = _fenced_blocks(answer.split("\n"))
    parts = [_without_prompts(block) for block in blocks] or [_without_prompts(whole)]
    cut = [_without_tail(part) for part in parts]
    loose = [_without_tail(text) for text in _from_each_opening(whole)][::-1]  # the longest last
    for wanted in (name, None) if name else (None,):
        for candidates in parts, cut, loose:
            for code in reversed(candidates):
                if defines(code, wanted):
                    return code
    return next((code for code in [*reversed(parts), *cut, *reversed(loose)] if parses(code)), parts[0])


def _dedent(text: str) -> str:
    return textwrap.dedent(text).strip("\n").rstrip()


def _fenced_blocks(lines: list[str]) -> list[str]:
    """What stands between fences; a fence in a docstring of the block does not end it."""
    blocks, at = [], 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        at += 1
        if opening:
            block, at = _block(lines, at, opening[2])
            blocks.append(block)
    return blocks


def _block(lines: list[str], start: int, fence: str) -> tuple[str, int]:
    """(text, next line) up to the first closing fence that leaves a program, else up to the first, else all."""
    first, tries = None, 0
    for end in range(start, len(lines)):
        text, found, after = lines[end].rstrip().partition(fence)
        if not found or after.strip(fence[0]):
            continue
        block = _dedent("\n".join([*lines[start:end], text])), end + 1
        if parses(block[0]):
            return block
        first, tries = first or block, tries + 1
        if tries == TRIES:
            break
    return first or (_dedent("\n".join(lines[start:])), len(lines))


def _without_prompts(text: str) -> str:
    """An interpreter session as the program that was typed; any other text as it is."""
    if parses(text) or not PROMPT.search(text):
        return text
    try:
        return "".join(example.source for example in doctest.DocTestParser().get_examples(text)).rstrip()
    except ValueError:  # a prompt without its space, or a broken indent
        return text


def _from_each_opening(text: str) -> list[str]:
    lines = text.split("\n")
    return ["\n".join(lines[i:]) for i, line in enumerate(lines) if FIRST_LINE.match(line)][:TRIES]


def _without_tail(text: str) -> str:
    """The longest beginning, by lines, that parses; the text itself if there is none."""
    lines = text.split("\n")
    end = len(lines)
    while end:
        begun = "\n".join(lines[:end])
        try:
            if ast.parse(begun).body:
                return begun.rstrip()
            return text
        except SyntaxError as error:  # no beginning that holds the line of the error parses either
            end = min(end, error.lineno or end) - 1
        except (ValueError, RecursionError, MemoryError):
            end -= 1
    return text


def defines(code: str, name: str | None) -> bool:
    """Whether code parses and holds the method, function or class `name`; without a name, any function or class."""
    if not parses(code):
        return False
    named = {node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return bool(named) if name is None else name in named or bool(_entry_point(code, name))


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
    `type_hints`: the entry point annotates its arguments and its result; `prompt_echo` looks past the given signature.
    """
    code, starter = extract_code(answer, row["entry_point"]), row.get("starter_code", "").strip("\n").rstrip()
    entry = _entry_point(code, row["entry_point"].removeprefix("Solution().")) if parses(code) else []
    return {
        "parses": parses(code),
        "defines_entry_point": bool(entry),
        "type_hints": bool(entry) and all(map(_is_typed, entry)),
        "code_only": parses(answer),
        "prompt_echo": prompt_echo(prompt, answer.removeprefix(starter), f"{starter}\n{row.get('completion', '')}"),
    }


def _entry_point(code: str, name: str) -> list[ast.FunctionDef]:
    """The method `name` of class Solution, the function of that name, or all methods of the class of that name."""
    body = ast.parse(code).body
    classes = {node.name: node.body for node in body if isinstance(node, ast.ClassDef)}
    named = [node for node in _functions(classes.get("Solution", body)) if node.name == name]
    return named[:1] or _functions(classes.get(name, []))


def _functions(places: list[ast.stmt]) -> list[ast.FunctionDef]:
    return [node for node in places if isinstance(node, ast.FunctionDef)]


def _is_typed(method: ast.FunctionDef) -> bool:
    arguments = [argument for argument in method.args.args if argument.arg != "self"]
    returns = method.returns is not None or method.name == "__init__"
    return returns and all(argument.annotation is not None for argument in arguments)
