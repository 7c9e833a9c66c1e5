"""What llama.cpp answers from exported GGUF files, next to our merged model: tokens, greedy texts, where they part.

    python3 -m venv /tmp/reader && /tmp/reader/bin/pip install llama-cpp-python
    .venv/bin/python benchmarks/gguf_export.py --reader /tmp/reader/bin/python \
        [--adapters outputs/demo/translation/adapter outputs/demo/leetcode/adapter] [--json FILE]

A check for who changes models/gguf_export.py or gguf_vocabulary.py; llama-cpp-python compiles for ten minutes and is no
dependency. Every adapter is exported twice, merged and as GGUF, and answers test rows that its notebook scored. Where
llama.cpp writes another token than the merged model would after the same ones, the difference of the two tokens' logits
is given in both: between roundings of the same weights it is small. Without --adapters, tiny random models of every
architecture: as a GGUF file whose tokenizer is taken over, and as a transformers folder whose tokenizer is written.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = 5
KINDS = ("f16", "q8_0")


def read(path: str, asked: list[str], prompts: list[str], stop: list[str], longest: int) -> list[dict]:
    """llama.cpp's greedy answer to each prompt: tokens, TOP largest logits at each step, text up to a stop string.

    `asked` is what a user types for each; `chat` is what the file's own chat template makes of it.
    """
    import llama_cpp
    import numpy
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    model = llama_cpp.Llama(path, n_ctx=2048, n_batch=2048, verbose=False, n_threads=1, n_threads_batch=1)
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    template = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], eos_token="", bos_token="")

    def top() -> list[list]:
        logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(model.n_vocab(),))
        return [[int(i), float(logits[i])] for i in numpy.argsort(-logits)[:TOP]]

    def answer(prompt: str) -> dict:
        ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
        model.reset()
        model.eval(ids)
        written, steps, text = [], [], ""
        while len(written) < longest and not any(end in text for end in stop):
            steps.append(top())
            written.append(steps[-1][0][0])
            if llama_cpp.llama_vocab_is_eog(vocabulary, written[-1]):
                break
            text = model.detokenize(written).decode(errors="ignore")
            model.eval(written[-1:])
        for end in stop:
            text = text.split(end)[0]
        return {"ids": ids, "written": written, "top": steps, "text": text}

    chats = [template(messages=[{"role": "user", "content": text}]).prompt for text in asked]
    return [answer(prompt) | {"chat": chat} for prompt, chat in zip(prompts, chats, strict=True)]


def llama_cpp_answers(reader: str, path: Path, **question) -> list[dict]:
    done = subprocess.run(
        [reader, __file__, "--answer"],
        input=json.dumps(question | {"path": str(path)}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{reader} cannot read {path}:\n{done.stderr}")
    return json.loads(done.stdout)


def partings(model, answers: list[dict]) -> tuple[list[dict], list[float]]:
    """(Rows whose answers part from what `model` would write, all differences of the TOP logits).

    A row's answer is read by `model` once; the first token that is not its largest logit is where greedy texts part.
    """
    import torch

    found, differences = [], []
    for row, answer in enumerate(answers):
        ids = torch.tensor([answer["ids"] + answer["written"]])
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=len(answer["written"]) + 1).logits[0, :-1].float()  # (T, V)
        for step, (ours, theirs, written) in enumerate(zip(logits, answer["top"], answer["written"], strict=True)):
            differences += [abs(ours[token].item() - value) for token, value in theirs]
            best = ours.argmax().item()
            if best != written:
                there = dict(map(tuple, theirs))
                found.append(
                    {
                        "row": row,
                        "token": step,
                        "ours_prefers_its_own_by": (ours[best] - ours[written]).item(),
                        "theirs_prefers_its_own_by": there[written] - there[best] if best in there else None,
                    }
                )
                break
    return found, differences


def exports(adapter: Path, folder: Path) -> tuple[Path, Path]:
    """(GGUF folder, merged folder) of `adapter` in `folder`, made unless they are there."""
    from llmft_helpers.models.exporting import export
    from llmft_helpers.models.loading import read_adapter_note
    from llmft_helpers.models.notes import noted_profile

    made = {kind: folder / f"{adapter.parent.name}-{kind}" for kind in ("gguf", "merged")}
    for kind, output in made.items():
        if not output.exists():
            export(noted_profile(read_adapter_note(adapter), adapter), adapter, output, kind)
    return made["gguf"], made["merged"]


def compare(reader: str, adapter: Path, rows: int, folder: Path) -> dict:
    """One adapter: the merged model's answers to `rows` test rows against llama.cpp's from both files."""
    from llmft_helpers.models.generation import generate
    from llmft_helpers.models.loading import load_base_model, read_adapter_note
    from llmft_helpers.models.notes import noted_profile, noted_task
    from llmft_helpers.storage import read_jsonl

    note = read_adapter_note(adapter)
    profile, task = noted_profile(note, adapter), noted_task(note)
    longest = getattr(profile, task.name).max_new_tokens
    scored = random.Random(0).sample(read_jsonl(adapter.parent / "predictions.jsonl"), rows)
    prompts = [task.prompt(row) for row in scored]
    asked = [row[task.source] for row in scored] if task.name == "translation" else prompts
    files, whole = exports(adapter, folder)
    model, tokenizer = load_base_model(replace(profile.model, name=str(whole), load_in_4bit=False, revision=None))
    model = model.float().eval()
    texts = [one.text for one in generate(model, tokenizer, prompts, longest, task.stop, rows)]
    report = {"base": note["base_model"], "rows": rows, "merged": bleu(task, scored, texts)}
    for kind in KINDS:
        path = files / f"model-{kind}.gguf"
        answers = llama_cpp_answers(
            reader, path, asked=asked, prompts=prompts, stop=task.stop, longest=longest
        )  # fmt: skip
        parts, differences = partings(model, answers)
        theirs = [answer["text"] for answer in answers]
        tokens = [tokenizer(prompt).input_ids for prompt in prompts]
        report[kind] = {
            "bytes": path.stat().st_size,
            "same_prompt_tokens": sum(answer["ids"] == ids for answer, ids in zip(answers, tokens, strict=True)),
            "same_chat_prompt": sum(answer["chat"] == prompt for answer, prompt in zip(answers, prompts, strict=True)),
            "same_text": sum(a == b for a, b in zip(theirs, texts, strict=True)),
            "same_token_by_token": rows - len(parts),
            "partings": parts,
            "logit_difference": spread(differences),
            "different_texts": [[a, b] for a, b in zip(texts, theirs, strict=True) if a != b],
        }  # fmt: skip
        report[kind] |= bleu(task, scored, theirs)
    return report


def spread(differences: list[float]) -> dict[str, float]:
    ordered = sorted(differences)
    return {"median": ordered[len(ordered) // 2], "largest": ordered[-1]}


def bleu(task, rows: list[dict], texts: list[str]) -> dict:
    """BLEU of translations; programs are compared as texts only."""
    from llmft_helpers.scoring.metrics import translation_scores

    if task.name != "translation":
        return {}
    answers, references = [task.answer(text) for text in texts], [row[task.target] for row in rows]
    return {"bleu": translation_scores(answers, references)["bleu"]}


def architectures(reader: str) -> dict[str, dict]:
    """Tiny random models: texts cut into the same tokens, and the largest difference of a logit, f16 against merged."""
    from gguf_parity import texts
    from tiny_gguf import FILES, shaken_adapter, write

    from llmft_helpers.errors import UserError
    from llmft_helpers.models.exporting import export, merged_in_float32
    from llmft_helpers.models.gguf_files import gguf_model

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            file = write(Path(folder) / f"{name}.gguf", name)
            for source, base in {"file": file, "folder": gguf_model(file, Path(folder) / "cache")}.items():
                profile, adapter = shaken_adapter(str(base), Path(folder) / f"{name}-{source}")
                output = adapter.parent / "exported"
                try:
                    export(profile, adapter, output, "gguf")
                except UserError as error:
                    found[f"{name}, {source}"] = {"refused": str(error)}
                    continue
                model, tokenizer = merged_in_float32(profile, adapter)
                asked = [text for text in texts(10, 5, 25) if text]
                question = {"asked": asked, "prompts": asked, "stop": [], "longest": 3}
                answers = llama_cpp_answers(reader, output / "model-f16.gguf", **question)
                same = [a["ids"] == tokenizer(text).input_ids for a, text in zip(answers, asked, strict=True)]
                differences = partings(model, [a for a, equal in zip(answers, same, strict=True) if equal])[1]
                found[f"{name}, {source}"] = {
                    "texts": len(asked),
                    "same_tokens": sum(same),
                    "logit_difference": spread(differences),
                }
                print(name, source, found[f"{name}, {source}"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", required=True, help="a Python with llama-cpp-python")
    parser.add_argument("--adapters", nargs="*", type=Path, default=[], help="trained adapters, results beside them")
    parser.add_argument("--rows", type=int, default=20, help="test rows of each (default 20)")
    parser.add_argument("--exports", type=Path, help="folder where the exports are left, or were (default: nowhere)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed, beside what is there")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from llmft_helpers.storage import read_json, write_json

    results = read_json(options.json) if options.json and options.json.is_file() else {}
    if not options.adapters:
        results["architectures"] = architectures(options.reader)
    for adapter in options.adapters:
        with contextlib.ExitStack() as stack:
            folder = options.exports or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            results[adapter.parent.name] = compare(options.reader, adapter, options.rows, folder)
    print(json.dumps(results, indent=2, ensure_ascii=False))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        print(json.dumps(read(**json.load(sys.stdin))))
    else:
        main()
