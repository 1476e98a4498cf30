"""A trained model, ready to score: numpy in, numpy out, without Ray, MLflow or a study.

    model = d2l_study.load("models/colon-student")
    model.predict_bags([vectors_of_slide_1, vectors_of_slide_2])      # (2,) probabilities
    model.predict_instances(vectors_of_slide_1)                       # (n,) probabilities

An instance's logit is that of the bag which holds it alone. A bag's is what the model makes of the whole bag: a teacher
by its pooling, a student by pooling the scores of its instances. A model is never changed by what it is asked, so that
threads may share one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from d2l_study.data.pool import Bags, Pool
from d2l_study.errors import UserError
from d2l_study.inference.label import NOT_FINITE, normaliser
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.model_folder import ModelRecord
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute, chunk_size, predict_bags
from d2l_study.models import Terms


@dataclass(frozen=True)
class BagScores:
    """What a model says of one bag. instance_logits: (n,) float32; bag_logit: NaN of a bag without instances, or where
    only instances were asked for."""

    instance_logits: np.ndarray
    bag_logit: float


class LoadedModel:
    """A stored model on a device.

    stored: the network, its parameters and what its file says of it; record: what is known of its training, as its
    folder or its study says; name: of the model, for tables and messages.
    """

    def __init__(
        self, stored: StoredModel, record: ModelRecord | None = None, name: str = "model",
        compute: Compute | None = None,
    ) -> None:  # fmt: skip
        self.stored, self.record, self.name = stored, record or ModelRecord(), name
        self._compute = compute or Compute()
        self._normalise = normaliser(stored, self._compute)
        self._params = {key: value.to(self._compute.device) for key, value in stored.params.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one instance: (channels, height, width) of a patch, (D,) of a feature vector."""
        return self.stored.model.shape

    @property
    def stage(self) -> str:
        """`teacher`, `student`, or a reference that was trained on instances (`model_file.STAGES`)."""
        return self.stored.card.stage

    @property
    def instance_threshold(self) -> float | None:
        """The logit above which an instance is called positive, set in training without instance labels; None where it
        could not be set."""
        return self.stored.card.instance_threshold

    @property
    def bag_threshold(self) -> float | None:
        """The logit above which a bag is called positive, set on the validation bags; None where that is not known."""
        return self.record.bag_threshold

    def predict_bags(self, bags: Iterable[np.ndarray]) -> np.ndarray:
        """(B,) float64, the probability in [0, 1] that each bag is positive; NaN for a bag without instances.

        bags: of each bag its instances, as of `instance_logits`. `UserError` (a `ValueError`) if they are not such.
        """
        logits = self.bag_logits(bags)
        full = ~np.isnan(logits)
        found = np.full(len(logits), np.nan)
        found[full] = probability(logits[full])
        return found

    def predict_instances(self, instances: np.ndarray) -> np.ndarray:
        """(n,) float64, the probability in [0, 1] that each instance is positive. instances, errors: as of
        `instance_logits`."""
        return probability(self.instance_logits(instances))

    def bag_logits(self, bags: Iterable[np.ndarray]) -> np.ndarray:
        """(B,) float64, the logit of each bag, NaN for one without instances. bags, errors: as of `predict_bags`."""
        if isinstance(bags, np.ndarray) and bags.ndim == len(self.shape) + 1:
            raise UserError(f"bags: an array of dimensions {bags.shape}, which is one bag; expected a list of bags")
        return np.array([self.score_bag([bag]).bag_logit for bag in bags], np.float64)

    def instance_logits(self, instances: np.ndarray) -> np.ndarray:
        """(n,) float32, the logit of each instance.

        instances: patches (n, C, H, W) uint8, levels 0 to 255, as they were cut; or vectors (n, D) of a floating point
        type, as the encoder gave them. The model normalises them itself. `UserError` (a `ValueError`) for another type
        or shape, and for vectors that hold NaN or infinity.
        """
        return self.score_bag([instances], pooled=False).instance_logits

    @torch.no_grad()
    def score_bag(
        self, parts: Iterable[np.ndarray], pooled: bool = True, done: Callable[[int], None] | None = None
    ) -> BagScores:
        """The scores of one bag whose instances come in parts, of which one is held at a time.

        parts: arrays as of `instance_logits`, which together are the bag; pooled: whether the bag's logit is wanted;
        done: is called with how many instances are scored. `UserError` as of `instance_logits`.
        """
        logits, pooled_logits = self._scored(parts, None, 1, pooled, done)
        return BagScores(logits, float(pooled_logits[0]))

    @torch.no_grad()
    def score_bags(self, parts: Iterable[np.ndarray], bag_of: np.ndarray, bags: int) -> tuple[np.ndarray, np.ndarray]:
        """The logits of the instances of several bags, (n,) float32, and of the bags, (bags,) float32, NaN without
        instances.

        parts: as of `score_bag`, in any order of bags; bag_of: (n,) int64, the bag of each instance, 0 … bags − 1.
        """
        present, place = np.unique(bag_of, return_inverse=True)
        found = np.full(bags, np.nan, np.float32)
        logits, found[present] = self._scored(parts, torch.from_numpy(place), len(present))
        return logits, found

    def _scored(
        self, parts: Iterable[np.ndarray], bag_of: torch.Tensor | None, bags: int, pooled: bool = True,
        done: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """As of `score_bags`. bag_of: None if all are of one bag; pooled: whether bags are wanted, else NaN."""
        device = self._compute.device
        where = None if bag_of is None else bag_of.to(device)
        highest: torch.Tensor | None = None
        count = 0

        def terms_of(chunks: Iterable[np.ndarray]) -> Iterator[Terms]:
            nonlocal highest, count
            for chunk in chunks:
                with self._compute.autocast():
                    terms = self.stored.model.terms(self._params, self._normalise(chunk))
                first, count = count, count + len(chunk)
                if terms.embedding is not None:  # of which a bag's largest are enough
                    mine = torch.zeros(len(chunk), dtype=torch.int64, device=device) if where is None else (
                        where[first:count])  # fmt: skip
                    highest = _highest(highest, terms.embedding, mine, bags)
                if done is not None:
                    done(count)
                yield Terms(terms.logit, terms.attention)

        chunks = self._chunks(parts)
        begin = next(chunks, None)
        if begin is None:
            return np.empty(0, np.float32), np.full(bags, np.nan, np.float32)
        terms = Terms.collected(terms_of(itertools.chain([begin], chunks)), None if where is None else len(where))
        logits, found = terms.logit.cpu().numpy(), np.full(bags, np.nan, np.float32)
        if pooled:
            if where is None:
                where = torch.zeros(count, dtype=torch.int64, device=device)
            if highest is not None:
                terms, where = Terms(highest[:, 0], None, highest), torch.arange(bags, device=device)
            found = self.stored.model.pool(self._params, terms, where, bags).cpu().numpy()
        if not (np.isfinite(logits).all() and (not pooled or np.isfinite(found).all())):
            raise UserError(NOT_FINITE)
        return logits, found

    def collection_logits(self, pool: Pool, sets: Sequence[Bags]) -> list[np.ndarray]:
        """The logit of each bag, (bags,) float32, for each of several sets of bags over one pool of instances.

        The same as of `bag_logits` to rounding, and quicker: an instance that stands in several bags is looked at once.
        pool: its instances have the model's `shape`; no bag is empty. `UserError` if a score is no finite number.
        """
        found = predict_bags(self.stored.model, self._params, pool, sets, self._normalise, self._compute)
        if not all(np.isfinite(logits).all() for logits in found):
            raise UserError(NOT_FINITE)
        return found

    def _chunks(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        size = chunk_size(self.shape)
        for part in parts:
            array = self._checked(part)
            for first in range(0, len(array), size):
                yield array[first : first + size]

    def _checked(self, part: np.ndarray) -> np.ndarray:
        array = np.asarray(part)
        wanted = f"(n, {', '.join(map(str, self.shape))})"
        patches = len(self.shape) == 3
        kind = array.dtype == np.uint8 if patches else array.dtype.kind == "f" and array.dtype.itemsize <= 8
        if array.shape[1:] != self.shape or array.ndim != len(self.shape) + 1 or not kind:
            hint = ""
            if array.shape == self.shape:
                hint = "; a single instance is array[None]"
            elif patches and array.ndim == 4 and array.shape[1:] == (*self.shape[1:], self.shape[0]):
                hint = "; channels come before height and width: numpy.moveaxis(array, -1, 1)"
            elif patches and array.dtype.kind == "f":
                hint = "; levels are 0 to 255, not normalised"
            type_name = "uint8" if patches else "a floating point type of up to 64 bits"
            raise UserError(f"instances of {array.dtype} with dimensions {array.shape}; this model takes {type_name} "
                            f"with {wanted}{hint}")  # fmt: skip
        if not patches and not np.isfinite(array).all():
            raise UserError("instances: vectors with NaN or infinity; expected finite numbers")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return native if native.flags.writeable and native.flags.c_contiguous else np.array(native, order="C")


def _highest(before: torch.Tensor | None, values: torch.Tensor, bag_of: torch.Tensor, bags: int) -> torch.Tensor:
    """(bags, features) the largest of each feature in each bag so far. values: (n, features); bag_of: (n,)."""
    if before is None:
        before = values.new_full((bags, values.shape[1]), -torch.inf)
    return before.scatter_reduce(0, bag_of[:, None].expand_as(values), values, "amax", include_self=True)
