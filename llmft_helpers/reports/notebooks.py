"""Run copies of the notebooks without a browser: progress by cell, an HTML report, the partial copy of a failure."""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

from ..errors import UserError
from ..profiles import Profile, is_local
from ..runs import ROOT, outputs_root, run_dir, write_text

FOLDER = ROOT / "notebooks"
TEMPLATES = Path(__file__).parent / "templates"


def find_notebooks(numbers: list[str]) -> list[Path]:
    """Paths of the notebooks with these numbers ("01" or "1"), of all of them for an empty list."""
    every = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name[:2]: path for path in every}
    unknown = [number for number in numbers if number.zfill(2) not in known]
    if unknown:
        raise UserError(f"no notebook {', '.join(unknown)}: there are {', '.join(known)}")
    return [known[number.zfill(2)] for number in numbers] or every


def run_notebook(path: Path, profile: Profile, profile_choice: str) -> Path:
    """Execute a copy of one notebook; write it and an HTML report to outputs/<profile>/reports; the report's path.

    UserError if a cell fails or the kernel dies: the message shows the cell, the partial notebook is kept beside the
    reports.
    """
    reports = run_dir(profile, "reports")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,  # of a progress bar only the last state stays
        resources={"metadata": {"path": str(FOLDER)}},
        extra_arguments=["--log-level=ERROR"],
    )
    _report_progress(client, path.stem)
    try:
        client.execute(env=kernel_environment(profile, profile_choice))
    except (CellExecutionError, DeadKernelError) as error:
        partial = reports / f"{path.stem}.partial.ipynb"
        write_text(partial, nbformat.writes(notebook))
        killed = ": most likely out of memory; run again, training goes on where it was"
        cause = f"{error}{killed if isinstance(error, DeadKernelError) else ''}"
        raise UserError(f"{path.name} failed; its partial copy is {partial}\n{cause}") from error
    (reports / f"{path.stem}.partial.ipynb").unlink(missing_ok=True)
    notebook.metadata.pop("widgets", None)  # their state breaks rendering elsewhere
    write_text(reports / path.name, nbformat.writes(notebook))
    exporter = HTMLExporter(embed_images=True, template_name="folded", extra_template_basedirs=[str(TEMPLATES)])
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    report = reports / f"{path.stem}.html"
    write_text(report, page)
    return report


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


def _report_progress(client: NotebookClient, name: str) -> None:
    code_cells = [index for index, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]
    started = time.perf_counter()
    terminal = sys.stderr.isatty()
    clear = "\r\033[K" if terminal else ""

    def show(cell, cell_index) -> None:
        if cell.cell_type != "code":
            return
        number = code_cells.index(cell_index) + 1
        first_line = next((line for line in cell.source.split("\n") if line.strip()), "")[:56]
        text = f"{name}  cell {number:>2}/{len(code_cells)}  {time.perf_counter() - started:6.0f} s  {first_line}"
        print(f"{clear}{text}", end="" if terminal else "\n", file=sys.stderr, flush=True)

    client.on_cell_start = show
    client.on_notebook_complete = lambda notebook: print(
        f"{clear}{name}  done in {time.perf_counter() - started:.0f} s", file=sys.stderr
    )
