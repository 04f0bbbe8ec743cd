"""Code that runs in a kernel, as a cell of a notebook does."""

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def run_cell(code, folder):
    """Run a cell, and return its outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    kernel = AsyncKernelManager(transport="ipc", connection_file=str(folder / "kernel.json"))
    NotebookClient(notebook, km=kernel, timeout=120).execute(cleanup_kc=True)
    return notebook.cells[0].outputs
