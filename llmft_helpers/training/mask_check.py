"""What the loss sees of a training batch, to be looked at before hours are spent on it."""

import torch


def mask_check(trainer, count: int = 3) -> str:
    """Two lines for each of the first examples of a batch: what is scored, then all of it with masked tokens as ·."""
    decode = trainer.processing_class.decode
    lines = []
    for tokens, labels in examples(next(iter(trainer.get_train_dataloader())))[:count]:
        lines.append(repr(decode(tokens[labels != -100])))
        pairs = zip(tokens, labels, strict=True)
        lines.append("".join("·" if label == -100 else decode([token]) for token, label in pairs))
    return "\n".join(lines)


def examples(batch: dict) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(tokens, labels), each (T,), of every example without padding: of a padded batch (B, T), or of one that holds all
    examples one after the other (1, sum of T), as a card computes it."""
    ids, labels = batch["input_ids"], batch["labels"]
    if "packed_seq_lengths" in batch:
        lengths = batch["packed_seq_lengths"].tolist()
        used = sum(lengths)  # the row may be filled up to a multiple
        return list(zip(ids[0, :used].split(lengths), labels[0, :used].split(lengths), strict=True))
    rows = zip(ids, labels, batch["attention_mask"].bool(), strict=True)
    return [(row[kept], label[kept]) for row, label, kept in rows]
