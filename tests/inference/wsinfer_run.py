"""Finds patches on slides and scores them, by WSInfer's own functions, as its command `wsinfer run` calls them.

    python wsinfer_run.py SLIDES RESULTS TORCHSCRIPT CONFIG

The command itself asks its registry on the network for models before anything else. A program of its own: the package
writes to the home folder at import.
"""

import json
import sys
from pathlib import Path

import torch


def allow_torchvision_without_operators():
    """Wheels of torchvision hold operators for a torch with CUDA; beside another torch they do not load, and the import
    of what needs none of them fails, too. Then they are declared, and never called."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def run(slides, results, model, config):
    from wsinfer.modellib.models import LocalModelTorchScript
    from wsinfer.modellib.run_inference import run_inference
    from wsinfer.patchlib import segment_and_patch_directory_of_slides
    from wsinfer.wsi import set_backend
    from wsinfer_zoo.client import ModelConfiguration

    set_backend("openslide")
    settings = ModelConfiguration.from_dict(json.loads(Path(config).read_text()))
    segment_and_patch_directory_of_slides(
        wsi_dir=slides, save_dir=results, patch_size_px=settings.patch_size_pixels,
        patch_spacing_um_px=settings.spacing_um_px, thumbsize=(2048, 2048), median_filter_size=7, binary_threshold=7,
        closing_kernel_size=6, min_object_size_um2=200, min_hole_size_um2=190, overlap=0.0,
    )  # fmt: skip
    failed = run_inference(slides, results, LocalModelTorchScript(config=settings, model_path=model))
    assert failed == ([], []), failed


if __name__ == "__main__":
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = allow_torchvision_without_operators()
    run(*sys.argv[1:])
