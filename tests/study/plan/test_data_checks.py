"""What only the data can tell of a configuration is said by `plan`, before anything is trained."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from d2l_study.cli import main
from d2l_study.data.pool import Pool
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training_options import LEAST_PATCH, PATCH_NETWORKS
from d2l_study.models.mil import EXTRACTORS, PATCH_EXTRACTORS
from d2l_study.study.plan.data_checks import check_sections

SPACE = """\
description: own images
data: {{dataset: manifest, path: own.csv, patch_size: {patch}, folds: 3}}
teacher: {{extractor: {extractor}, augment: histology, steps: 2, eval_every: 2}}
student: {{network: {network}, steps: 2, eval_every: 2}}
teachers: {{none: {{}}}}
methods: {{student: {{}}}}
references: [{references}]
replicates: 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine images with three points each, and the instance labels that a test writes."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for bag in range(9):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"i{bag}.png")
    return tmp_path


def _plan(
    folder: Path, known: bool = True, patch: int = 16, extractor: str = "lenet_histology", network: str = "resnet",
    references: str = "bag_label",
) -> int:  # fmt: skip
    with (folder / "own.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bag", "label", "path", "x", "y", "instance_label"])
        for bag in range(9):
            for k in range(3):
                truth = int(bag % 2 and k == 0)
                writer.writerow([f"b{bag}", bag % 2, f"i{bag}.png", 10 + 10 * k, 20, truth if known else ""])
    (folder / "own.yaml").write_text(
        SPACE.format(patch=patch, extractor=extractor, network=network, references=references)
    )
    return main(["plan", "--space", "own.yaml"])


def _unwrapped(text: str) -> str:
    """What a plan said, with lines together again that were too wide for the screen."""
    return re.sub(r"\n {6}(?: {2})?(?! )", " ", text)


def test_the_least_patch_is_that_of_the_network() -> None:
    assert set(LEAST_PATCH) == set(PATCH_NETWORKS) == set(PATCH_EXTRACTORS)
    for name, least in LEAST_PATCH.items():
        EXTRACTORS[name].init(np.random.default_rng(0), (3, least, least), 4)
        with pytest.raises(UserError, match=f"at least {least}×{least}"):
            EXTRACTORS[name].init(np.random.default_rng(0), (3, least - 1, least), 4)


def test_a_plan_that_fits_its_data(own: Path) -> None:
    assert _plan(own, references="bag_label, attention, cam, oracle") == 0


def test_a_fold_of_one_class_is_said_before_training(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(own) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(["plan", "--space", "own.yaml", "--set", "data.folds=5", "replicates=7"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "bag_auc is not defined" in line]
    # Nine bags in five folds, two to a fold but for one: fold 4, or another, has a single bag.
    assert said and all(line.startswith("  warning: ") for line in said)
    assert any("1 test bags are" in line and "(replicate" in line and "leave" in line for line in said)


def test_patches_too_small_for_a_network(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(own, patch=10) == 2
    assert (
        "error: own.yaml: teacher.extractor: lenet_histology needs patches of at least 11×11 pixels; those of "
        "data set manifest have 10×10" in capsys.readouterr().err
    )
    assert _plan(own, patch=12, network="lenet") == 2
    assert "student.network: lenet needs patches of at least 16×16" in capsys.readouterr().err


def test_stains_of_grey_patches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--space", "smoke", "--set", "teacher.augment=histology"]) == 2
    said = "histology needs colour patches (3 channels); those of data set mnist have 1"
    assert f"error: --set teacher.augment: {said}" in capsys.readouterr().err


def test_neighbours_of_instances_without_places(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--space", "distill_quick", "--set", "student.neighbours=8"]) == 2
    said = "student.neighbours: 8 needs the places of instances in their image; those of data set mnist have none"
    assert f"error: --set {said}" in capsys.readouterr().err
    assert main(["plan", "--space", "distill_quick", "--set", "neighbours=8"]) == 2
    assert f"error: --set {said.removeprefix('student.')}" in capsys.readouterr().err
    assert _plan(own) == 0
    assert main(["plan", "--space", "own.yaml", "--set", "student.neighbours=2"]) == 0
    assert main(["plan", "--space", "own.yaml", "--set", "student.neighbours=3"]) == 2
    assert "student.neighbours: 3 is not allowed: the largest bag of data set manifest has 3 instances" in (
        capsys.readouterr().err
    )
    rows = [line.split(",") for line in (own / "own.csv").read_text().splitlines()]
    (own / "own.csv").write_text("\n".join(",".join(row[:3]) for row in rows[:1] + rows[1::3]))
    whole = ["--set", "data.cut=whole", "--set", "data.patch_size=40"]
    assert main(["plan", "--space", "own.yaml", "--set", "student.neighbours=8", *whole]) == 2
    said = capsys.readouterr().err
    assert "student.neighbours: 8 needs the places of instances in their image; those of bag 'b0' have none" in said


def test_an_oracle_without_known_instances(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(own, known=False) == 0
    assert _plan(own, known=False, references="bag_label, oracle") == 2
    said = capsys.readouterr().err
    assert "the training bags of repeat 0, fold 0 of data set manifest have no instances of known label" in said


def test_class_maps_of_images_too_small(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (41, 30)).save(own / "i4.png")
    assert _plan(own, references="peak") == 2
    said = capsys.readouterr().err
    assert "references: peak:" in said and "i4.png: 41×30 pixels; class maps need a side of at least 32" in said


def test_what_the_data_are_is_always_said(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups, bags by class, images, instances and known labels, of all and by part; and what columns were taken as."""
    assert _plan(own) == 0
    lines = _unwrapped(capsys.readouterr().out).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  data: "))
    whole = (
        "9 bags (4 positive, 5 negative), each bag a group of its own (no patients are named); 9 images, 27 instances"
    )
    part = "3 bags (1–2 positive, 1–2 negative) of 3 groups; 9 instances (1–2 known positive, 7–8 known negative)"
    assert lines[start : start + 4] == [
        f"  data: manifest: {whole} (4 known positive, 23 known negative)",
        *(f"    {name}: {part}" for name in ("train", "val", "test")),
    ]
    with (own / "own.csv").open() as file:
        rows = list(csv.reader(file))
    with (own / "own.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*rows[0][:5], "Patient ID", "stain"])
        out.writerows([*row[:5], f"p{int(row[0][1:]) // 2}", "H&E"] for row in rows[1:])
    (own / "own.yaml").write_text(SPACE.format(patch=16, extractor="lenet_histology", network="resnet",
                                               references="bag_label"))  # fmt: skip
    assert main(["plan", "--space", "own.yaml"]) == 0
    text = _unwrapped(capsys.readouterr().out)
    assert "9 bags (4 positive, 5 negative), 5 groups (patients or the like); 9 images, 27 instances (no labels" in text
    assert "    column Patient ID is taken as group\n    columns left alone: stain\n" in text


ALIKE = """\
description: own images
data: {{dataset: manifest, path: own.csv, {data}}}
teacher: {{steps: 2, eval_every: 2}}
methods: {{{methods}}}
replicates: 3
"""


@pytest.mark.parametrize(
    ("split", "data", "said"),
    [
        ("", "patch_size: 16, folds: 3, stride: [8, 16]", "data.stride 8 and 16 give the same bags"),
        ("", "patch_size: 16, folds: 3, cut: [points, null]", "data.cut points and null give the same bags"),
        ("", "patch_size: 16, folds: 3, num_bags: [3, null]", "data.num_bags 3 and null give the same bags"),
        ("", "patch_size: 16, folds: 3, white_above: [0.99, null]", "data.white_above 0.99 and null give"),
        ("", "patch_size: 16, folds: 3, num_bags: [2, null]", ""),
        ("", "patch_size: [16, 20], folds: 3", ""),
        ("", "patch_size: 16, folds: [3, 4]", ""),
        ("012", "patch_size: 16, folds: 7", "data.folds: 7 does nothing: the table gives 3 folds (its column split)"),
        ("012", "patch_size: 16, folds: [3, 7]", "data.folds: 7 does nothing: the table gives 3 folds"),
        ("012", "patch_size: 16, folds: 3", ""),
        ("012", "patch_size: 16", ""),
        (("train", "val", "test"), "patch_size: 16, folds: 3", "the table says what is trained on, validated and test"),
        (("train", "train", "test"), "patch_size: 16, folds: 3", ""),  # the validation bags are a fold of the others
    ],
)  # fmt: skip
def test_axes_and_keys_that_do_nothing_with_these_data_are_refused_by_name(
    own: Path, capsys: pytest.CaptureFixture[str], split: tuple[str, ...], data: str, said: str
) -> None:
    with (own / "own.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bag", "label", "path", "x", "y", *(["split"] if split else [])])
        for bag in range(9):
            writer.writerow([f"b{bag}", bag % 2, f"i{bag}.png", 20, 20, *([split[bag // 3]] if split else [])])
    (own / "own.yaml").write_text(ALIKE.format(data=data, methods="none: {}"))
    assert main(["plan", "--space", "own.yaml"]) == (2 if said else 0)
    assert said in (found := capsys.readouterr().err) and (not said or "own.yaml: data." in found)


@pytest.mark.parametrize(
    ("shape", "section", "said"),
    [
        ((9,), TeacherConfig(), "teacher.extractor: lenet is a network of image patches; those of data set any are "
         "vectors of 9 numbers (allowed: none, mlp)"),
        ((9,), StudentConfig(network="mlp"), "student.augment: affine changes image patches"),
        ((9,), TeacherConfig(extractor="none", lambda_noise=1.0, noise_kind="uniform"), "teacher.noise_kind: uniform"),
        ((3, 20, 20), StudentConfig(network="mlp"), "student.network: mlp is for vectors; the instances of data set "
         "any are patches of 20×20 pixels"),
        ((3, 20, 20), TeacherConfig(extractor="none"), "teacher.extractor: none is for vectors"),
    ],
)  # fmt: skip
def test_a_network_for_other_instances_is_refused(shape, section, said):
    pool = Pool("any", np.zeros((2, *shape), np.uint8), np.zeros(2, np.int64), "")
    with pytest.raises(UserError, match=re.escape(said)):
        check_sections([section], pool)


@pytest.mark.parametrize(
    "section",
    [TeacherConfig(extractor="mlp"), StudentConfig(network="none", augment="none"),
     TeacherConfig(extractor="none", noise_kind="uniform")],
)  # fmt: skip
def test_networks_of_vectors_go_with_vectors(section):
    check_sections([section], Pool("any", np.zeros((2, 9), np.float16), np.zeros(2, np.int64), ""))


def test_arms_that_differ_in_more_than_the_same_bags_are_two(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _plan(own)
    for more, code in (("", 2), (", teacher: {dropout: 0.5}", 0)):
        methods = f"a: {{}}, b: {{data: {{cut: points}}{more}}}"
        (own / "own.yaml").write_text(ALIKE.format(data="patch_size: 16, folds: 3", methods=methods))
        assert main(["plan", "--space", "own.yaml"]) == code
        assert ("(methods a and b)" in capsys.readouterr().err) == bool(code)
