"""What low rank has to beat: pruning without training, from the same source, down to the same cost.

Two thin matrix products in place of one save less time than operations, and pruning repairs what it takes, so that low
rank often loses. Which one does, is measured: how far the answers of both are from the source's, on examples that
neither was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Artifact, Task
from edgekit.data.table import SplitName, Table
from edgekit.errors import StageError
from edgekit.formats.cost_table import CostTable
from edgekit.stages.base import Context, kind_of
from edgekit.stages.trim import cut_within, given_costs, within

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.nn.calibration import Calibration
    from edgekit.nn.structure import Widths

__all__ = ["Duel", "Verdict", "obstacle", "prepare"]

PARTS = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
WHOLE_LENGTH = ("key", "value")  # a classifier's last layer, too, computes them at every token
HELD_SHARE = 4  # a quarter of the examples is judged by, where there are few


@dataclass(frozen=True)
class Verdict:
    """`moved`: how far low rank's answers are from the source's (the distance that distillation lowers: of classes mean
    KL divergence in nats), over `rows` examples; `pruned`: pruning's, at the same `share` of the source's cost, None
    where pruning cannot come down to it. `by_table`: the cost is predicted milliseconds, else operations."""

    moved: float
    pruned: float | None
    share: float
    rows: int
    by_table: bool

    @property
    def lost(self) -> bool:
        return self.pruned is not None and self.moved > self.pruned

    @property
    def sentence(self) -> str:
        """Both figures, in words."""
        low = f"low rank moved the answers by {self.moved:.3g}"
        if self.pruned is None:
            return f"{low}, and pruning cannot come down to its cost"
        return f"{low} where pruning to the same cost moves them by {self.pruned:.3g}"

    @property
    def detail(self) -> str:
        """What the figures are of, and what to do instead of low rank."""
        cost = "predicted milliseconds" if self.by_table else "operations"
        return (
            f"{self.sentence} (mean distance from the source's on {self.rows} examples that neither was fitted to, at "
            f"{self.share:.0%} of its {cost}); the source goes on as it was. edgekit trim prunes so"
        )


@dataclass(frozen=True)
class Duel:
    """A comparison that is to be made. `context`: what both are fitted to; `held`: what they are judged by."""

    context: Context
    held: Table
    widths: Widths
    table: CostTable | None

    def judge(
        self,
        source: Artifact,
        intact: PreTrainedModel,
        thin: PreTrainedModel,
        calibration: Calibration,
        *,
        unit: int,
        seed: int,
    ) -> Verdict:
        """Prune `intact`, which is `source`, to what `thin` costs, and lay the answers of both beside its own."""
        task = source.task or self.context.task
        assert task is not None  # a trained model has one
        share = _share(intact, thin, self.widths, self.table)
        moved = [self._answers_moved(source, task, intact, thin)]
        try:
            cost, budget = within(share, self.widths, self.table)
            cut = cut_within(intact, calibration, cost, budget, unit=unit, seed=seed, progress=self.context.progress)
            moved.append(self._answers_moved(source, task, intact, cut.model))
        except StageError:  # even the smallest widths cost more
            pass
        pruned = moved[1] if len(moved) > 1 else None
        return Verdict(moved[0], pruned, share, len(self.held), self.table is not None)

    def _answers_moved(self, source: Artifact, task: Task, intact: PreTrainedModel, other: PreTrainedModel) -> float:
        """The mean distance of `other`'s answers to the examples held out from `intact`'s."""
        from edgekit.nn.evaluate import logits_of
        from edgekit.tasks.base import output_of_all
        from edgekit.tasks.encoders import examples_of

        examples, device = examples_of(source.path, self.held, task), self.context.device
        exact = examples.read(logits_of(intact, examples.encoded, device=device))
        output = output_of_all(logits_of(other, examples.encoded, device=device), examples)
        return max(0.0, float(examples.follow(output, range(len(self.held)), exact, 1.0)))  # below 0 by rounding


def obstacle(source: Artifact, model: PreTrainedModel, parts: Sequence[str], context: Context) -> str:
    """Why low rank of these parts of `model` cannot be compared with pruning; empty where it can."""
    from edgekit.nn.factored import LowRankLinear
    from edgekit.nn.load import encoder_layers, is_trained
    from edgekit.nn.structure import widths_of

    if "embedding" in parts:
        return "the embedding is factorized in the same step, and pruning leaves it as it is"
    if (source.task or context.task) is None or not is_trained(source.path, kind_of(source, context)):
        return "the model is not trained for a task yet, so that it has no answers to keep"
    if any(isinstance(module, LowRankLinear) for layer in encoder_layers(model) for module in layer.modules()):
        return "its layers are of low rank already"
    if len(context.data.get("train", context.data.get("unlabeled", Table(())))) < 2:
        return "there are no training data to fit both to"
    try:
        widths_of(model)
    except StageError as error:
        return str(error)
    return ""


def prepare(
    model: PreTrainedModel, context: Context, *, costs: str, foreign_costs: bool, samples: int, seed: int
) -> Duel:
    """Hold examples out to judge by: as many as are fitted to, at most a quarter of all. `costs`: a file of trim's.

    Raises UsageError for a table of another machine or model.
    """
    from edgekit.nn.structure import widths_of

    widths, table = widths_of(model), None
    if costs:
        table = given_costs(costs, foreign=foreign_costs)
        table.check(widths, table.precision, table.threads, table.batch)
    rows = context.calibration()
    name: SplitName = "train" if "train" in context.data else "unlabeled"
    order = np.random.default_rng(seed).permutation(len(rows))
    count = max(1, min(samples, len(rows) // HELD_SHARE))
    held, rest = (rows.take(sorted(int(row) for row in part)) for part in (order[:count], order[count:]))
    return Duel(replace(context, data={**context.data, name: rest}), held, widths, table)


def _share(intact: PreTrainedModel, thin: PreTrainedModel, widths: Widths, table: CostTable | None) -> float:
    """What `thin` costs of what `intact` does: predicted milliseconds, or operations, of which each weight of a layer
    is two a token."""
    from edgekit.nn.factored import LowRankLinear, size_of
    from edgekit.nn.load import encoder_layers
    from edgekit.nn.surgery import part

    if table is None:
        after, before = (sum(size_of(layer) for layer in encoder_layers(model)) for model in (thin, intact))
        return after / before
    saved, seen = 0.0, set[int]()
    for layer in range(widths.layers):
        for name in PARTS:
            module = part(thin, layer, name)
            if isinstance(module, LowRankLinear) and id(module) not in seen:
                seen.add(id(module))  # one matrix may be several parts
                at = 0 if name in WHOLE_LENGTH else layer
                dense = module.in_features * module.out_features
                low = module.rank * (module.in_features + module.out_features)
                saved += table.products(at, dense) - table.products(at, low)
    return 1 - saved / table.whole_ms
