"""How a tuned model is asked outside this suite: Ollama's Modelfile, and the chat template inside a GGUF file.

A model knows one prompt and has been asked one thing at a time: both ask the last message alone, in that form.
"""

from ..data.prompts import Task, TranslationTask

LONGEST = 4096  # tokens: what `translate` and `solve` take, and little memory
IN_USE, SMALLER = "model-f16.gguf", "model-q8_0.gguf"
LAST_OF_OLLAMA = "{{ range $i, $message := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}ASKED{{ end }}{{ end }}"


def chat_template(task: Task, after: str = "") -> str:
    """In Jinja, for llama.cpp's and LM Studio's chats. `after`: what the tokenizer wants behind a problem's docstring,
    of `boundary.after_docstring`."""
    behind = "{{ '\\n' }}" * after.count("\n")  # Jinja drops a template's own last line break
    return _asked(task, "{{ messages[-1]['content'] }}", behind)


def modelfile(task: Task, ends: list[str], context: int, longest_answer: int, after: str = "") -> str:
    """For `ollama create`: the weights beside it, our prompt, greedy answers as they were scored.

    An answer stops at the end tokens `ends`, at the task's stop strings, or after `longest_answer` tokens; no token is
    made less likely because it was written before, as Ollama does unless it is told. `context`: what the model holds.
    """
    template = LAST_OF_OLLAMA.replace("ASKED", _asked(task, "{{ $message.Content }}", after))
    settings = {
        "temperature": 0,
        "repeat_penalty": 1,
        "num_ctx": min(context, LONGEST),
        "num_predict": longest_answer,
    }
    lines = [f"# half the size, other words now and then: FROM ./{SMALLER}", f"FROM ./{IN_USE}"]
    lines += [f"TEMPLATE {_quoted(template)}"]
    lines += [f"PARAMETER {name} {value}" for name, value in settings.items()]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in (*ends, *task.stop)]
    return "\n".join(lines) + "\n"


def _asked(task: Task, question: str, after: str) -> str:
    """The task's prompt around `question`; of a problem it is what the user types, code up to the answer."""
    return task.prompt({task.source: question}) if isinstance(task, TranslationTask) else question + after


def _quoted(text: str) -> str:
    """As Ollama writes it: no character is escaped, a line break stands as itself, marks go into three of them."""
    mark = '"""' if '"' in text else '"'
    return f"{mark}{text}{mark}"
