"""A tiny random Llama and an outputs folder of its own: nothing is downloaded, nothing of the user's is touched."""

import os
import signal
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def outputs(tmp_path_factory) -> Path:
    """Results of all tests go to a temporary folder."""
    folder = tmp_path_factory.mktemp("outputs")
    previous = os.environ.get("LLMFT_OUTPUTS")
    os.environ["LLMFT_OUTPUTS"] = str(folder)
    yield folder
    if previous is None:
        del os.environ["LLMFT_OUTPUTS"]
    else:
        os.environ["LLMFT_OUTPUTS"] = previous


@pytest.fixture(scope="session")
def profile():
    from llmft_helpers.profiles import load_profile

    return load_profile("tiny")


@pytest.fixture(scope="session")
def base(profile):
    """(model, tokenizer): the tiny random Llama in 4-bit, shared and never trained."""
    from llmft_helpers.models.loading import load_base_model

    model, tokenizer = load_base_model(profile.model)
    return model.eval(), tokenizer


@pytest.fixture
def fresh(profile):
    """(model, tokenizer) of its own for a test that trains or adds adapters."""
    from llmft_helpers.models.loading import load_base_model

    return load_base_model(profile.model)


@pytest.fixture(scope="session")
def pairs() -> list[dict]:
    return [
        {"id": "a", "es": "¿Dónde está la estación?", "en": "Where is the station?", "source": "everyday"},
        {"id": "b", "es": "Hola.", "en": "Hello.", "source": "everyday"},
        {"id": "c", "es": "Mi abuela guarda las llaves aquí.", "en": "My grandmother keeps the keys here.",
         "source": "formal"},
        {"id": "d", "es": "Llueve.", "en": "It is raining.", "source": "formal"},
        {"id": "e", "es": "No quiero ir sin ti.", "en": "I do not want to go without you.", "source": "everyday"},
    ]  # fmt: skip
