"""The colon images as a laboratory would list its own: writes a manifest with a row per annotated nucleus.

    python docs/colon_manifest.py /data/CRCHistoPhenotypes_2016_04_28 colon.csv

With `data: {dataset: manifest, path: colon.csv, patch_size: 27}` the bags are those of `dataset: colon`, but for nuclei
that the archive has twice at one place (at times of two classes): a manifest must not repeat a point, so the first is
kept.
"""

import csv
import os
import sys
from pathlib import Path

from d2l_study.data.colon import CLASSES, POSITIVE, find_images, read_nuclei


def write_manifest(archive: Path, out: Path) -> tuple[int, int, int]:
    """Write the manifest of all images of the archive; returns the numbers of images, rows and repeated nuclei."""
    rows = repeated = 0
    images = find_images(archive)
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["bag", "label", "path", "x", "y", "instance_label"])
        for image in images:
            nuclei = {kind: read_nuclei(image.nuclei[kind]) for kind in CLASSES}  # 0-based (column, row)
            label = int(len(nuclei[POSITIVE]) > 0)
            path = os.path.relpath(image.image, out.parent)
            seen = set()
            for kind in CLASSES:
                for x, y in nuclei[kind].tolist():
                    if (x, y) in seen:
                        repeated += 1
                        continue
                    seen.add((x, y))
                    table.writerow([image.name, label, path, x, y, int(kind == POSITIVE)])
                    rows += 1
    return len(images), rows, repeated


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/colon_manifest.py ARCHIVE OUT.csv")
    images, rows, repeated = write_manifest(Path(sys.argv[1]), Path(sys.argv[2]).absolute())
    print(f"{sys.argv[2]}: {images} images, {rows} nuclei ({repeated} repeated ones left out)")
