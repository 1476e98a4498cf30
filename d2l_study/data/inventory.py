"""The `data` command: which data sets are here, where, and whether they are what they should be."""

from __future__ import annotations

from d2l_study.data import mnist
from d2l_study.environment import cache_dir


def show_data(mnist_folder: str | None = None) -> int:
    """Print MNIST's files (the embedded ones, or those of a folder) with their verification.

    `UserError` names a file that is missing or damaged.
    """
    files = mnist.find_files(mnist_folder)
    print(f"mnist: {'the embedded copy' if mnist_folder is None else mnist_folder} (data.dataset: mnist)")
    for name, path in files.items():
        array = mnist.read_idx(path, name)
        shape = "×".join(str(n) for n in array.shape)
        print(f"  {path}  {shape}, md5 {mnist.FILES[name][0]} verified")
    print(f"  decoded once into {cache_dir()}")
    return 0
