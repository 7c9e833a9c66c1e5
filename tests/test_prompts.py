"""Prompts and completions: what training sees is what evaluation asks."""

import re
from types import SimpleNamespace

import pytest
import tiny_gguf

from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask, few_shot_prompt, training_rows
from llmft_helpers.models.boundary import after_docstring, as_asked, encode, split
from llmft_helpers.models.gguf_files import GgufFile
from llmft_helpers.models.gguf_tokenizer import read_tokenizer
from llmft_helpers.training.fine_tuning import example

ROW = {"es": "¿Qué hora es?", "en": "What time is it?"}
PROBLEM = {
    "problem_description": "Return the sum of nums.\n\nExample 1:\n\nInput: nums = [1]\nOutput: 1",
    "entry_point": "total",
    "starter_code": "class Solution:\n    def total(self, nums: List[int]) -> int:\n",
    "completion": "class Solution:\n    def total(self, nums: List[int]) -> int:\n        return sum(nums)\n",
}


@pytest.mark.parametrize(
    ("direction", "prompt", "completion"),
    [
        ("es-en", "Spanish: ¿Qué hora es?\nEnglish:", " What time is it?"),
        ("en-es", "English: What time is it?\nSpanish:", " ¿Qué hora es?"),
    ],
)
def test_translation_prompt_in_both_directions(direction, prompt, completion):
    assert training_rows(TranslationTask(direction), [ROW]) == [{"prompt": prompt, "completion": completion}]


def test_both_directions_train_both_ways_and_ask_for_english():
    task = TranslationTask("both")
    assert training_rows(task, [ROW]) == [
        *training_rows(TranslationTask("es-en"), [ROW]),
        *training_rows(TranslationTask("en-es"), [ROW]),
    ]
    assert (task.source, task.target) == ("es", "en")
    assert few_shot_prompt(task, ROW, [ROW]) == few_shot_prompt(TranslationTask("es-en"), ROW, [ROW])


def test_a_problem_is_asked_as_unfinished_code_and_answered_by_the_body():
    row = training_rows(LeetcodeTask(), [PROBLEM])[0]
    assert row["prompt"] == (
        "class Solution:\n    def total(self, nums: List[int]) -> int:\n"
        '        """\n        Return the sum of nums.\n        """'
    )
    assert row["completion"] == "\n        return sum(nums)"


def test_an_answer_goes_back_under_its_signature_unless_it_is_a_program_itself():
    task, whole = LeetcodeTask(), PROBLEM["completion"].strip()
    assert task.program(PROBLEM, "\n        return sum(nums)\n") == whole
    assert task.program(PROBLEM, f"\n{whole}\n") == whole
    assert task.program(PROBLEM, f"Here it is:\n```python\n{whole}\n```") == f"Here it is:\n```python\n{whole}\n```"
    plain = "import math\n\ndef total(nums):\n    return math.fsum(nums)"
    assert task.program(PROBLEM, f"\n{plain}\n") == plain
    assert task.program(PROBLEM, "") == ""


def test_a_reference_that_does_not_fit_its_signature_is_asked_for_as_a_whole():
    row = PROBLEM | {"completion": "class Solution:\n    def total(self, numbers):\n        return sum(numbers)"}
    asked = training_rows(LeetcodeTask(), [row])[0]
    assert asked["prompt"].startswith('"""\nReturn the sum of nums.\n\nclass Solution:') and asked["prompt"].endswith(
        '"""'
    )
    assert asked["completion"] == "\n" + row["completion"]
    assert LeetcodeTask().program(row, asked["completion"]) == row["completion"]


@pytest.mark.parametrize("changes", [{"completion": None}, {"entry_point": None}, {"completion": ""}])
def test_a_null_is_an_absent_column_of_a_problem_to_solve(changes):
    asked = LeetcodeTask().prompt(PROBLEM)
    assert LeetcodeTask().prompt(PROBLEM | changes) == asked
    assert LeetcodeTask().prompt({k: v for k, v in PROBLEM.items() if k not in changes}) == asked


@pytest.mark.parametrize("task", [TranslationTask(), LeetcodeTask()])
@pytest.mark.parametrize("name", ["gemma-3-270m", "smollm2-135m-instruct"])
def test_cut_between_prompt_and_completion_is_a_token_boundary(task, name):
    from llmft_helpers.models.embedded import embedded_model
    from llmft_helpers.runs import cache_dir

    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model(name, cache_dir()))
    row = training_rows(task, [ROW | PROBLEM])[0]
    apart = tokenizer(row["prompt"]).input_ids + tokenizer(row["completion"], add_special_tokens=False).input_ids
    assert apart == tokenizer(row["prompt"] + row["completion"]).input_ids


@pytest.mark.parametrize("name", tiny_gguf.FILES)
def test_a_model_is_trained_and_scored_on_the_tokens_that_it_is_asked_with(name, tmp_path):
    """Qwen's and Llama 3's tokenizers join the marks before a line break with it."""
    tokenizer = read_tokenizer(GgufFile(tiny_gguf.write(tmp_path / f"{name}.gguf", name)))
    for row in (*training_rows(TranslationTask(), [ROW]), *training_rows(LeetcodeTask(), [PROBLEM])):
        tokens, known = encode(tokenizer, **row)
        assert tokens[:known] == tokenizer(as_asked(tokenizer, row["prompt"])).input_ids
        assert tokenizer.decode(tokens[known:]).strip() == row["completion"].strip()
        trained = example(tokenizer, row, loss_on_prompt=False)
        assert trained["input_ids"] == [*tokens, tokenizer.eos_token_id]
        assert trained["labels"] == [-100] * known + [*tokens[known:], tokenizer.eos_token_id]
        assert example(tokenizer, row, loss_on_prompt=True)["labels"] == trained["input_ids"]


class Joining:
    """A token a character (its length: 1 and over), but one for marks and one for marks with their line break."""

    def __call__(self, text, add_special_tokens=True):
        pieces = re.findall(r'"""\n?|.|\n', text)
        begin = [0] if add_special_tokens else []
        return SimpleNamespace(input_ids=begin + [len(piece) for piece in pieces])


def test_a_prompt_ends_with_the_line_break_that_its_tokenizer_joins_to_its_marks():
    assert as_asked(Joining(), 'a"""') == 'a"""\n' and as_asked(Joining(), "a:") == "a:"
    assert after_docstring(Joining()) == "\n"
    assert split(Joining(), 'a"""', "\nbc") == ('a"""\n', "bc") and split(Joining(), 'a"""', " b") == ('a"""', " b")
    assert encode(Joining(), 'a"""', "\nbc") == ([0, 1, 4, 1, 1], 3)
    assert encode(Joining(), 'a"""', " b") == ([0, 1, 3, 1, 1], 3)  # what follows is no line break
    assert encode(Joining(), "a:", "\nb") == ([0, 1, 1, 1, 1], 3)
    assert encode(Joining(), 'a""', '"\nb') == ([0, 1, 1, 1, 1, 1, 1], 4)  # a token would reach over the end: apart


def test_shots_come_first_and_are_solved():
    shot = {"es": "Hola.", "en": "Hello."}
    assert few_shot_prompt(TranslationTask(), ROW, [shot]) == (
        "Spanish: Hola.\nEnglish: Hello.\n\nSpanish: ¿Qué hora es?\nEnglish:"
    )


def test_answer_is_the_first_line():
    assert TranslationTask().answer(" It is late. \nSpanish: Sí.") == "It is late."
    assert TranslationTask().answer("") == ""
