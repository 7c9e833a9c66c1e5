"""One process, or one a GPU: the work is shared so that every row is computed once, and rank 0 alone writes.

`accelerate launch` or `torchrun` start the processes; without them everything here is a plain call.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from torch import distributed

from .errors import UserError

PATIENCE = timedelta(hours=2)  # how long the other processes wait for one that downloads or grades


def start_processes() -> None:
    """Join the processes that a launcher started; nothing where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def wait_for_all() -> None:
    if count() > 1:
        distributed.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block runs in rank 0, then in the others: what it downloads or converts is there for them."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def spread(rows: list, compute: Callable[[list], list]) -> list:
    """`compute(rows)`, one result a row in the order of `rows`; each process computes every count()-th row."""
    if count() == 1:
        return compute(rows)
    share = rows[distributed.get_rank() :: count()]
    shares: list = [None] * count()
    distributed.all_gather_object(shares, compute(share) if share else [])
    results: list = [None] * len(rows)
    for rank, part in enumerate(shares):
        results[rank :: count()] = part
    return results


def fill_last_batch(trainer) -> None:
    """Give a trainer that shares its batches full ones, with rows that nothing is scored on.

    Accelerate fills the last batch with rows from the first, which would be trained on twice.
    UserError if the processes cannot share a batch evenly.
    """
    batch_size = trainer.args.per_device_train_batch_size
    if batch_size % count():
        raise UserError(f"batch_size = {batch_size} cannot be shared by {count()} processes: make it a multiple")
    missing = -len(trainer.train_dataset) % batch_size
    if count() == 1 or not missing:
        return
    from datasets import concatenate_datasets

    rows = trainer.train_dataset
    shortest = min(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    filling = rows.select([shortest] * missing).map(_unscored, load_from_cache_file=False)
    trainer.train_dataset = concatenate_datasets([rows, filling])


def _unscored(row: dict) -> dict:
    return {"labels": [-100] * len(row["labels"])}
