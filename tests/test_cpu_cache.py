"""Generation's cache holds what the library's holds, without copying it for every token."""

from dataclasses import replace

import pytest
import torch
from tiny_gguf import write

from llmft_helpers.cpu import cache as cpu_cache
from llmft_helpers.cpu.cache import roomy_cache
from llmft_helpers.models import loading as models

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the cache is Unsloth's")


@pytest.fixture(scope="module")
def gemma(profile, tmp_path_factory):
    """Windows of 8 tokens in all layers but the last."""
    path = write(tmp_path_factory.mktemp("gemma") / "gemma3.gguf", "gemma3")
    return models.load_base_model(replace(profile.model, name=str(path)))[0].eval()


@pytest.fixture(params=["llama", "gemma"])
def model(request, base, gemma):
    return base[0] if request.param == "llama" else gemma


@pytest.mark.parametrize("window", [8, 64])
@pytest.mark.parametrize("room", [64, 3])
def test_a_text_read_token_by_token_is_the_text_read_at_once(model, window, room, monkeypatch):
    monkeypatch.setattr(cpu_cache, "ROOM", room)
    monkeypatch.setattr(model.config, "sliding_window", window, raising=False)
    ids = torch.randint(3, 90, (2, 30), generator=torch.Generator().manual_seed(0))  # (B, T)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    cache = roomy_cache()
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).logits[:, 3:]  # (B, T - 3, V): others see padding alone
        parts = [
            model(input_ids=ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache).logits
            for start, end in [(0, 7), *((t, t + 1) for t in range(7, 30))]
        ]
    assert torch.allclose(torch.cat(parts, 1)[:, 3:].float(), wanted.float(), rtol=0.01, atol=0.01)
    assert wanted.std() > 0.1


def test_a_token_is_written_behind_the_others_where_they_are(base):
    cache, tokens, places = roomy_cache(), torch.randn(2, 3, 9, 4), set()
    for start, end in ((0, 5), (5, 6), (6, 9)):
        keys, values = cache.update(tokens[:, :, start:end], -tokens[:, :, start:end], 0)
        places.add(keys.data_ptr())
        assert torch.equal(keys, tokens[:, :, :end]) and torch.equal(values, -keys)
    assert len(places) == 1 and cache.get_seq_length() == 9


def test_repeated_and_shortened_rows_go_on_from_what_they_hold(base):
    cache, tokens = roomy_cache(), torch.randn(1, 3, 9, 4)
    cache.update(tokens[:, :, :5], tokens[:, :, :5], 0)
    cache.batch_repeat_interleave(2)
    keys, _ = cache.update(tokens[:, :, 5:].expand(2, 3, 4, 4), tokens[:, :, 5:].expand(2, 3, 4, 4), 0)
    assert torch.equal(keys, tokens.expand(2, 3, 9, 4))
    cache.crop(-2)
    keys, _ = cache.update(tokens[:, :, :1].expand(2, 3, 1, 4), tokens[:, :, :1].expand(2, 3, 1, 4), 0)
    assert torch.equal(keys, torch.cat([tokens[:, :, :7], tokens[:, :, :1]], 2).expand(2, 3, 8, 4))
