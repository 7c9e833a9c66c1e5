"""Started by test_cuda_path.py: the same scores and texts by transformers and PEFT alone, row by row, without Unsloth.

`card_reference.py FOLDER OUT`, after card_checks.py, whose adapters it loads.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
rows = [row for name in ("rows", "long") for row in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))]
tokenizer = AutoTokenizer.from_pretrained(folder / "llama")
four_bit = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
)
model = AutoModelForCausalLM.from_pretrained(folder / "llama", quantization_config=four_bit, dtype=torch.float32)
model = model.dequantize(dtype=torch.float32).eval()


@torch.no_grad()
def nats() -> list[float]:
    sums = []
    for row in rows:
        prompt = tokenizer(row["prompt"]).input_ids
        answer = [*tokenizer(row["completion"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]  # (T, V)
        sums.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item())
    return sums


def texts() -> list[str]:
    answers = []
    for row in rows:
        inputs = tokenizer(row["prompt"], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        answers.append(tokenizer.decode(tokens[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
    return answers


results = {"nats_base": nats(), "texts_base": texts()}
model = PeftModel.from_pretrained(model, folder / "first", adapter_name="first").eval()
model.load_adapter(folder / "second", adapter_name="second")
for name in ("first", "second"):
    model.set_adapter(name)
    results |= {f"nats_{name}": nats(), f"texts_{name}": texts()}
out.write_text(json.dumps(results), encoding="utf-8")
