"""Run copies of the notebooks without a browser: progress by cell, an HTML report, the partial copy of a failure."""

import asyncio
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

from ..errors import UserError
from ..profiles import Profile, is_local
from ..runs import ROOT, outputs_root, run_dir
from ..storage import write_text
from .estimates import TIMED, Estimate, announce, in_words, this_machine

FOLDER = ROOT / "notebooks"
NEEDS = {"04": ("01", "02", "03"), "05": ("03",)}  # by number: whose results a notebook reads
ON_REQUEST = ("05",)  # takes its time
TEMPLATES = Path(__file__).parent / "templates"
SOURCE_ONLY = "source-only"  # tag of a cell that points to the executed copy


def find_notebooks(numbers: list[str]) -> list[Path]:
    """Paths of the notebooks with these numbers ("01" or "1"); for an empty list all but those ON_REQUEST."""
    every = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name[:2]: path for path in every}
    if not every:
        raise UserError(f"no notebooks in {FOLDER}: run it in a clone of the repository (cd there first)")
    unknown = [number for number in numbers if number.zfill(2) not in known]
    if unknown:
        raise UserError(f"no notebook {', '.join(unknown)}: there are {', '.join(known)}")
    chosen = [number.zfill(2) for number in numbers] or [number for number in known if number not in ON_REQUEST]
    return [known[number] for number in chosen]


def run_notebooks(paths: list[Path], profile: Profile, profile_choice: str) -> bool:
    """Run them in order and print each report's path; whether all came to their end. After a failure those go on that
    do not read its results."""
    missing: set[str] = set()
    machine = this_machine()
    estimates = {path.name[:2]: Estimate(run_dir(profile, "reports") / path.name, machine) for path in paths}
    print(announce(estimates), file=sys.stderr)
    for path in paths:
        number = path.name[:2]
        needed = sorted(missing.intersection(NEEDS.get(number, ())))
        try:
            if needed:
                raise UserError(f"{path.name} is left out: it reads the results of notebook {', '.join(needed)}")
            print(run_notebook(path, profile, profile_choice, machine), flush=True)
        except UserError as error:
            missing.add(number)
            print(f"error: {error}", file=sys.stderr)
    return not missing


class OwnKernel(AsyncKernelManager):
    """Starts the kernel of this interpreter, not whatever is called `python3` on JUPYTER_PATH."""

    def __init__(self, **kwargs) -> None:
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **kwargs)


def run_notebook(path: Path, profile: Profile, profile_choice: str, machine: dict | None = None) -> Path:
    """Execute a copy of one notebook; write it and an HTML report to outputs/<profile>/reports; the report's path.
    The copy says on which `machine` it ran.

    UserError if a cell fails or the kernel dies: the message shows the cell. The partial notebook is kept beside the
    reports, also on an interruption.
    """
    reports = run_dir(profile, "reports")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        coalesce_streams=True,  # of a progress bar only the last state stays
        resources={"metadata": {"path": str(FOLDER)}},
        extra_arguments=["--log-level=CRITICAL"],
    )
    machine = machine or this_machine()
    _report_progress(client, path.stem, Estimate(reports / path.name, machine))
    notebook.metadata[TIMED] = machine
    partial = reports / f"{path.stem}.partial.ipynb"
    try:
        _execute(client, kernel_environment(profile, profile_choice))
    except CellExecutionError as error:
        write_text(partial, nbformat.writes(notebook))
        raise UserError(f"{path.name} failed; its partial copy is {partial}\n{error}") from error
    except DeadKernelError as error:
        write_text(partial, nbformat.writes(notebook))
        cause = "its kernel died, most likely out of memory: run again, training goes on where it was"
        raise UserError(f"{path.name} failed ({cause}); its partial copy is {partial}") from error
    except KeyboardInterrupt as error:
        write_text(partial, nbformat.writes(notebook))
        error.add_note(f"the partial copy of {path.name} is {partial}; run again, training goes on where it was")
        raise
    partial.unlink(missing_ok=True)
    return write_report(notebook, reports / path.name)


def write_report(notebook, path: Path) -> Path:
    """An executed notebook as `path` and as HTML beside it; the HTML's path."""
    notebook.metadata.pop("widgets", None)  # their state breaks rendering elsewhere
    notebook.cells = [cell for cell in notebook.cells if SOURCE_ONLY not in cell.metadata.get("tags", [])]
    write_text(path, nbformat.writes(notebook))
    exporter = HTMLExporter(embed_images=True, template_name="folded", extra_template_basedirs=[str(TEMPLATES)])
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    report = path.with_suffix(".html")
    write_text(report, page)
    return report


def _execute(client: NotebookClient, environment: dict[str, str]) -> None:
    """In a thread: in the main one nbclient takes the signals, ends the kernel on them, and waits for it for ever."""
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        loop = runner.get_loop()
        task = loop.create_task(client.async_execute(env=environment))
        running = thread.submit(loop.run_until_complete, task)
        try:
            running.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(task.cancel)  # the kernel is interrupted and ended
            wait([running])
            raise


def kernel_environment(profile: Profile, profile_choice: str) -> dict[str, str]:
    """The environment of the kernel: the same profile, and no hub look-ups where everything is local."""
    environment = dict(os.environ, LLMFT_PROFILE=profile_choice, PYTHONWARNINGS="ignore")
    environment["LLMFT_OUTPUTS"] = str(outputs_root())  # a relative one would be another folder from there
    # glibc puts memory on large pages: some percent of a CPU's training time
    tunables = [os.environ.get("GLIBC_TUNABLES", ""), "glibc.malloc.hugetlb=1"]
    environment["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
    if is_local(profile):
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _report_progress(client: NotebookClient, name: str, estimate: Estimate) -> None:
    code_cells = [index for index, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]
    ids = [client.nb.cells[index].id for index in code_cells]
    started = time.perf_counter()
    terminal = sys.stderr.isatty()
    clear = "\r\033[K" if terminal else ""

    def show(cell, cell_index) -> None:
        if cell.cell_type != "code":
            return
        number = code_cells.index(cell_index) + 1
        first_line = next((line for line in cell.source.split("\n") if line.strip()), "")[:56]
        left = estimate.left(ids[number - 1 :])
        about = "" if left is None else f"  about {in_words(left)} left"
        text = (
            f"{name}  cell {number:>2}/{len(code_cells)}  {time.perf_counter() - started:6.0f} s{about}  {first_line}"
        )
        print(f"{clear}{text}", end="" if terminal else "\n", file=sys.stderr, flush=True)

    client.on_cell_start = show
    client.on_notebook_complete = lambda notebook: print(
        f"{clear}{name}  ended after {time.perf_counter() - started:.0f} s", file=sys.stderr
    )
