"""The recipes that gpu_full.py and lora_throughput.py compare: the same 4-bit model, LoRA on all projections."""

import dataclasses
import math
import time
from pathlib import Path

import torch

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MAX_LENGTH = 1024


class Recipe:
    """`name`: "ours", "int8" (ours, its products in 8-bit integers where that pays), "plain" (TRL + PEFT +
    bitsandbytes as documented) or "vendor" (Unsloth's notebook), and after a hyphen what is done with activations:
    "checkpointing" computes them twice, "offloading" is how the vendor's notebook always does it."""

    def __init__(self, name: str, folder: Path, sizes: dict, seed: int = 0):
        self.name, _, activations = name.partition("-")
        self.checkpointing, self.sizes, self.seed = activations == "checkpointing", sizes, seed
        self.model, self.tokenizer = getattr(self, f"load_{self.name}")(str(folder))
        self.initial = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    @property
    def is_ours(self) -> bool:
        return self.name in ("ours", "int8")

    def load_int8(self, folder: str):
        return self.load_ours(folder, int8_products=True)

    def load_ours(self, folder: str, int8_products: bool = False):
        from llmft_helpers.models.loading import add_lora, load_base_model
        from llmft_helpers.profiles import LoraSettings, ModelSettings

        base, tokenizer = load_base_model(ModelSettings(name=folder, max_length=MAX_LENGTH))
        rank = self.sizes["rank"]
        lora = LoraSettings(
            rank=rank, alpha=rank, int8_products=int8_products, gradient_checkpointing=self.checkpointing
        )
        return add_lora(base, lora, self.seed), tokenizer

    def load_plain(self, folder: str):
        if not torch.cuda.is_available():
            import unsloth  # noqa: F401  TRL's fused head needs a card; a dry run borrows Unsloth's for the CPU
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        four_bit = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=four_bit,
            dtype=torch.bfloat16,
            device_map={"": 0} if torch.cuda.is_available() else "cpu",
        )
        torch.manual_seed(self.seed)
        rank = self.sizes["rank"]
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=self.checkpointing)
        return get_peft_model(model, lora), AutoTokenizer.from_pretrained(folder)

    def load_vendor(self, folder: str):
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(folder, max_seq_length=2048, load_in_4bit=True)
        rank = self.sizes["rank"]
        model = FastLanguageModel.get_peft_model(
            model,
            r=rank,
            lora_alpha=rank,
            target_modules=PROJECTIONS,
            use_gradient_checkpointing="unsloth",
            random_state=self.seed,
        )
        return model, tokenizer

    def arguments(self, batch_size: int, steps: int, output: str, packing: bool):
        if self.is_ours:
            from llmft_helpers.profiles import TrainSettings
            from llmft_helpers.training.fine_tuning import training_arguments

            settings = TrainSettings(epochs=1.0, learning_rate=2e-4, batch_size=batch_size, evaluations=1)
            arguments = training_arguments(settings, steps, MAX_LENGTH, Path(output), self.seed)
            # validated together: a best model without evaluation, or saving without it, is refused
            changed = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
            changed |= {"metric_for_best_model": None, "logging_steps": self.sizes["log_every"]}
            if packing:  # rows of MAX_LENGTH tokens, so that a step has about as many tokens as before
                changed |= {"packing": True, "max_steps": -1}
                changed["per_device_train_batch_size"] = max(1, batch_size // 24)
            return dataclasses.replace(arguments, **changed)
        from trl import SFTConfig

        bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
        common = {
            "output_dir": output, "max_length": MAX_LENGTH, "completion_only_loss": True, "num_train_epochs": 1,
            "learning_rate": 2e-4, "bf16": bf16, "fp16": not bf16, "save_strategy": "no",
            "logging_steps": self.sizes["log_every"], "report_to": "none", "disable_tqdm": True,
            "include_num_input_tokens_seen": "non_padding", "seed": self.seed,
            "use_cpu": not torch.cuda.is_available(),
        }  # fmt: skip
        if self.name == "vendor":
            # The vendor's notebook: 8 rows a step, in four parts.
            parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "warmup_steps": 5}
            return SFTConfig(**common, **parts, optim="adamw_8bit", weight_decay=0.001, lr_scheduler_type="linear")
        return SFTConfig(**common, per_device_train_batch_size=batch_size, gradient_checkpointing=self.checkpointing)

    def train(self, rows: list[dict], batch_size: int, packing: bool = False) -> dict:
        """Speed and memory of one pass over `rows`, from the same start each time."""
        import tempfile

        from datasets import Dataset
        from transformers import TrainerCallback

        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(self.initial[name])
        marks = []

        class Clock(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                marks.append((time.perf_counter(), state.num_input_tokens_seen))

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as output:
            trainer = self.trainer_class()(
                model=self.model,
                args=self.arguments(batch_size, math.ceil(len(rows) / batch_size), output, packing),
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tokenizer,
                callbacks=[Clock()],
            )
            trainer.train()
        start, end = marks[min(self.sizes["timed_from"], len(marks) // 2)], marks[-1]
        parameters = list(self.model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        return {
            "steps": len(marks),
            "tokens_per_second": (end[1] - start[1]) / (end[0] - start[0]),
            "peak_memory_gb": self.peak_memory(),
            "trainable_parameters": trained,
            "frozen_parameters": _frozen(parameters),
            "losses": [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry],
        }

    def trainer_class(self):
        if self.is_ours:  # with the suite's order of rows, which decides the peak
            from llmft_helpers.training.trainer import LoraTrainer as Trainer
        else:
            from trl import SFTTrainer as Trainer
        return Trainer

    @staticmethod
    def peak_memory() -> float:
        from llmft_helpers.device import peak_memory_gb

        memory = peak_memory_gb()
        return memory.get("cuda", memory["host"])

    def validation_loss(self, rows: list[dict]) -> float:
        """Nats a completion token, by the same code for all recipes."""
        from llmft_helpers.scoring.metrics import completion_nats, total

        scored = total(completion_nats(self.model, self.tokenizer, rows))
        return scored.nats / scored.tokens

    def generation_speed(self, prompts: list[str]) -> float:
        """New tokens a second: greedy, in batches of 64, every answer of the same length for all recipes."""
        if self.name == "vendor":
            from unsloth import FastLanguageModel

            FastLanguageModel.for_inference(self.model)
        self.model.eval()
        self._generate(prompts[:2], 4)  # compiles
        started = time.perf_counter()
        tokens = sum(self._generate(prompts[i : i + 64], self.sizes["new_tokens"]) for i in range(0, len(prompts), 64))
        return tokens / (time.perf_counter() - started)

    @torch.inference_mode()
    def _generate(self, prompts: list[str], new_tokens: int) -> int:
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(self.model.device)
        output = self.model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return output[:, inputs.input_ids.shape[1] :].numel()  # (B, new)


def _frozen(parameters) -> int:
    """Frozen parameters that take part in every token: embeddings look up, but the tied one is also the head."""
    count = 0
    for parameter in parameters:
        if not parameter.requires_grad:
            packed = type(parameter).__name__ == "Params4bit"
            count += parameter.quant_state.shape.numel() if packed else parameter.numel()
    return count
