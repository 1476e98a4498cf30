"""Our models in MLflow: they score as the model itself does, also where d2l_study is not installed, and say what is
wrong with a table."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from empty_store import copied_store
from mlflow.exceptions import MlflowException

from d2l_study.data import MnistBags
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import ModelRecord, read_model_folder, write_model_folder
from d2l_study.learning.metrics import probability
from d2l_study.models import MilModel
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.model_files import ARTIFACT, save_mlflow_model

D = 6


def stored_model(kind):
    """A model of MNIST patches, or of vectors, with parameters as they are before training."""
    if kind == "patches":
        data = MnistBags(num_bags=6, mean_bag_size=12, test_bags=8)
        replicate = data.replicate(data.load_pool(), 0, 3)
        model = MilModel((1, 28, 28), "attention", 16)
        card = ModelCard("teacher", {"data": {}}, replicate.mean, replicate.std, "s", "ab" * 10, 0, 0.1)
    else:
        model = MilModel((D,), "attention", D, extractor="none")
        sections = {"data": {"normalise": "standard"}}
        card = ModelCard("student", sections, np.ones(D), 2 * np.ones(D), "s", "cd" * 10, 2, encoder="uni_v1")
    return StoredModel(model, model.init(np.random.default_rng(5)), card)


@pytest.fixture(scope="module", params=["patches", "vectors"])
def saved(request, tmp_path_factory):
    """A model as MLflow keeps it: its place, the model itself, and seven instances in three bags."""
    place = tmp_path_factory.mktemp("saved")
    client(copied_store(place, tmp_path_factory))  # for MLflow's settings; it opens the store to save a model
    folder = place / "model"
    folder.mkdir()
    stored = stored_model(request.param)
    write_model_folder(folder, stored, ModelRecord(bag_threshold=0.05), "# made\n", {})
    save_mlflow_model(place / "mlflow", folder, stored)
    model = LoadedModel(*read_model_folder(folder))
    if request.param == "patches":
        pool = MnistBags(num_bags=6, mean_bag_size=12, test_bags=8).load_pool()
        instances = pool.instances[np.arange(40, 47)]
    else:
        instances = np.random.default_rng(1).normal(size=(7, D))
    return place / "mlflow", model, instances


BAGS = list("baabcab")


def loaded(place):
    from mlflow.pyfunc import load_model

    return load_model(str(place))


def test_a_table_is_scored_as_the_model_scores(saved):
    place, model, x = saved
    rows = loaded(place).predict(pd.DataFrame({"bag": BAGS, "instance": list(x)}))
    assert list(rows) == ["level", "bag", "index", "logit", "score", "predicted"]
    assert rows["bag"].tolist() == list("bbbb") + list("aaaa") + list("cc")  # in the order of first rows
    assert rows["level"].tolist() == ["bag", *["instance"] * 3, "bag", *["instance"] * 3, "bag", "instance"]
    of = [[0, 3, 6], [1, 2, 5], [4]]
    bags, instances = rows[rows["level"] == "bag"], rows[rows["level"] == "instance"]
    np.testing.assert_allclose(bags["logit"], model.bag_logits([x[i] for i in of]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(instances["logit"], model.instance_logits(x[np.concatenate(of)]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(rows["score"], probability(rows["logit"].to_numpy()))
    assert bags["index"].isna().all() and instances["index"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert bags["predicted"].tolist() == (bags["logit"] > 0.05).astype(int).tolist()
    if model.instance_threshold is None:
        assert instances["predicted"].isna().all()
    else:
        assert instances["predicted"].tolist() == (instances["logit"] > 0.1).astype(int).tolist()


def test_levels_and_layouts_of_the_same_table(saved):
    place, _, x = saved
    pyfunc = loaded(place)
    whole = pyfunc.predict(pd.DataFrame({"instance": list(x)}))
    assert whole["bag"].unique().tolist() == ["all"] and len(whole) == 8
    nested = pd.DataFrame({"instance": [one.tolist() for one in x]})
    flat = pd.DataFrame({"instance": [one.reshape(-1).tolist() for one in x]})
    for table in (nested, flat):
        pd.testing.assert_frame_equal(pyfunc.predict(table), whole)
    for level in ("bag", "instance"):
        part = pyfunc.predict(nested, params={"level": level})
        assert part["level"].unique().tolist() == [level]
        np.testing.assert_array_equal(part["logit"], whole[whole["level"] == level]["logit"])


@pytest.mark.slow
def test_it_loads_where_d2l_study_and_ray_are_not(saved, tmp_path):
    place, model, x = saved
    (tmp_path / "table.json").write_text(pd.DataFrame({"bag": BAGS, "instance": [v.tolist() for v in x]}).to_json())
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path = [p for p in sys.path if not Path(p or '.', 'd2l_study/__init__.py').is_file()]\n"
        "class Hidden:\n"  # an editable installation leaves a folder of that name
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'd2l_study' and not sys.path[-1].endswith('code.zip'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "for name in ('ray', 'optuna', 'scipy', 'h5py'): sys.modules[name] = None\n"
        "try:\n"
        "    import d2l_study\n"
        "    sys.exit('d2l_study is there')\n"
        "except ModuleNotFoundError: pass\n"
        "import mlflow.pyfunc, pandas\n"
        f"model = mlflow.pyfunc.load_model({str(place)!r})\n"
        "print(model.predict(pandas.read_json('table.json'), params={'level': 'bag'}).to_json())\n"
        "import d2l_study; print(d2l_study.__file__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, where = done.stdout.splitlines()[-2:]
    assert where.startswith(str(place)) and "code.zip" in where
    expected = model.bag_logits([x[[0, 3, 6]], x[[1, 2, 5]], x[[4]]])
    np.testing.assert_allclose(list(json.loads(found)["logit"].values()), expected, rtol=0, atol=1e-5)


def test_what_is_kept_is_no_pickle_and_names_its_packages(saved):
    place, *_ = saved
    names = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
    assert f"{ARTIFACT}/model.safetensors" in names and not any(name.endswith(".pkl") for name in names)
    needs = [line.split("==")[0] for line in (place / "requirements.txt").read_text().splitlines()]
    assert sorted(needs) == ["mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch"]
    code = zipfile.ZipFile(place / "artifacts/code.zip")
    assert not any("/study/" in name or not name.endswith(".py") for name in code.namelist())
    assert (place / "artifacts/code.zip").stat().st_size < 600_000


def changed(x, value):
    """Seven flat instances as lists, the fourth changed."""
    rows = [one.reshape(-1).tolist() for one in x]
    rows[3] = value(rows[3])
    return pd.DataFrame({"instance": rows})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (lambda x: changed(x, lambda v: v[:-1]), r"row 3 holds [\d,]+ numbers; this model takes a (vector|patch) of"),
        (lambda x: changed(x, lambda v: [*v[:-1], None]), "row 3 holds something else than a list of numbers"),
        (lambda x: changed(x, lambda v: "0.5"), "row 3 holds something else than a list of numbers"),
        (lambda x: changed(x, lambda v: [v[:2], v]), "row 3 holds something else than a list of numbers"),
        (lambda x: pd.DataFrame({"bag": ["a", None], "instance": list(x[:2])}), "row 1 has no name"),
        (lambda x: pd.DataFrame({"instance": []}), "no rows"),
        (lambda x: pd.DataFrame({"vector": list(x)}), "missing inputs"),
        (lambda x: pd.DataFrame({"bag": [1] * 7, "instance": list(x)}), "bag"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_answered_in_words(saved, table, said):
    place, _, x = saved
    with pytest.raises(MlflowException, match=said):
        loaded(place).predict(table(x))


def test_wrong_numbers_and_levels_are_answered_in_words(saved):
    place, model, x = saved
    pyfunc = loaded(place)
    wrong = [0.5, 300, -1, float("nan")] if len(model.shape) == 3 else [float("nan"), float("inf")]
    for value in wrong:
        with pytest.raises(MlflowException, match=r"row 3 holds .*(whole numbers from 0 to 255|NaN or infinity)"):
            pyfunc.predict(changed(x, lambda v, value=value: [*v[:-1], value]))
    if len(model.shape) == 1:  # a number in float64, of which the network's format has none
        with pytest.raises(MlflowException, match="far larger than those it was trained on"):
            pyfunc.predict(changed(x, lambda v: [*v[:-1], 1e39]))
    with pytest.raises(MlflowException, match="level: 'bags' is not allowed; did you mean 'bag'"):
        pyfunc.predict(pd.DataFrame({"instance": list(x)}), params={"level": "bags"})
