"""What llama.cpp makes of GGUF files: tokens of some hundred texts and the largest logits, for tests/test_gguf.py.

    python3 -m venv /tmp/reader && /tmp/reader/bin/pip install llama-cpp-python
    .venv/bin/python benchmarks/gguf_parity.py --reader /tmp/reader/bin/python

A check for who changes models/gguf_files.py or gguf_tokenizer.py. llama-cpp-python compiles for ten minutes and is no
dependency. Logits are of the files' weights in float32: llama.cpp rounds the inputs of quantised products too.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "gguf_parity.json"
TOP = 5
SHIPPED = ("gemma-3-270m", "smollm2-135m-instruct")  # of EMBEDDED; another would have to be installed
PROMPTS = (  # asked of the embedded models; the last is longer than Gemma's window of 512 tokens
    "Spanish: ¿Dónde está la estación?\nEnglish:",
    "def total(numbers):\n    return",
    "It is the year 2024, and 1234567 people",
    "Spanish: La casa de la niña está cerca.\nEnglish: The girl's house is near.\n\n" * 30 + "Spanish: Hola.\nEnglish:",
)
ODD_TEXTS = [
    "", "a", " ", "  ", "   x", "\n", "\n\n\n", "\t\tx", "x \n y", " Hola", "Spanish:", "x" * 50, "=" * 20,
    " unmergeable thing", "<|end|> a<tool>b", "<eos><bos>x<td>y</td>", "I'll WE'RE don'T", "漢字とかな", "🤖🤖👩‍👩‍👧",
    "\u200b\ufeffx", "¡Niña! «años»", "y     y      z", "12 1 123 1234 12345", "½ ² ٣٤", "\r\n\r\nx\r",
    "a\u00a0b\u3000c", "\x00\x01", "def  sum(self, list):\n        return self.numbers", "cafe\u0301", " " * 40 + "x",
    "\n" * 40 + "x", "Straße Ünïcödé Ελληνικά Русский", "https://example.org/a?b=c&d=%20", "3.14 -1e10 0x1F",
]  # fmt: skip
ALPHABET = " \n\t.,;:!¿abcéñÉß漢字かなЖд🤖👍0123456789_-=(){}[]<>/\\\"'`~@#$%^&*+|\u00a0\u200d"


def texts(pairs: int, programs: int, mixtures: int) -> list[str]:
    """Odd ones, prompts of the shipped pairs, programs, and random mixtures of signs."""
    draw = random.Random(0)

    def rows(path: str) -> list[dict]:
        return [json.loads(line) for line in (ROOT / "data" / path).read_text(encoding="utf-8").splitlines()]

    sentences = [
        f"Spanish: {row['es']}\nEnglish: {row['en']}" for row in draw.sample(rows("es_en/formal.jsonl"), pairs)
    ]
    code = [row["completion"][:200] for row in draw.sample(rows("leetcode/problems.jsonl"), programs)]
    mixed = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 40))) for _ in range(mixtures)]
    return [*ODD_TEXTS, *sentences, *code, *mixed]


def in_float32(source: Path, target: Path) -> Path:
    """A copy of the GGUF file `source` whose weights are dequantised."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=of_array)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def read(path: str, asked: list[str], prompts: list[str]) -> dict:
    """llama.cpp's tokens of each text of `asked`, and the TOP largest logits after each prompt."""
    import llama_cpp
    import numpy

    in_full = {"type_k": 0, "type_v": 0}  # a cache in float32
    model = llama_cpp.Llama(path, n_ctx=1024, n_batch=1024, n_ubatch=1024, verbose=False, **in_full)

    def tokens(text: str) -> list[int]:
        return model.tokenize(text.encode(), add_bos=True, special=True)

    def top(ids: list[int]) -> list[list]:
        model.reset()
        model.eval(ids)
        logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(model.n_vocab(),))
        return [[int(i), round(float(logits[i]), 4)] for i in numpy.argsort(-logits)[:TOP]]

    return {"ids": [tokens(text) for text in asked], "top": [top(tokens(prompt)) for prompt in prompts]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reader", required=True, help="a Python with llama-cpp-python")
    reader = parser.parse_args().reader
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import tiny_gguf

    from llmft_helpers.models.embedded import put_together

    short, many = texts(10, 5, 25), texts(80, 25, 80)
    figures = {"texts": {"tiny": short, "embedded": many}, "prompts": {"tiny": short[34:37], "embedded": list(PROMPTS)}}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: ("tiny", tiny_gguf.write(Path(folder) / f"{name}.gguf", name)) for name in tiny_gguf.FILES}
        for name in SHIPPED:
            whole = put_together(name, Path(folder) / f"{name}-quantised.gguf")
            jobs[name] = ("embedded", in_float32(whole, Path(folder) / f"{name}.gguf"))
        for name, (kind, path) in jobs.items():
            question = json.dumps([str(path), figures["texts"][kind], figures["prompts"][kind]])
            done = subprocess.run([reader, __file__, "--answer"], input=question, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{reader} cannot read {name}:\n{done.stderr}")
            figures[name] = json.loads(done.stdout)
            print(f"{name}: {len(figures[name]['ids'])} texts, {len(figures[name]['top'])} prompts")
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in figures.items()]
    FIXTURE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        print(json.dumps(read(*json.load(sys.stdin))))
    else:
        main()
