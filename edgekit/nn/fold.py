"""The first layers of an encoder, as well as a table can do what they do: one row a token, and one a position.

What those layers make of a token depends most on which token it is, less on where it stands and on its neighbours. So
the sum that the last of them normalizes is fitted, by least squares over real texts, as a row for the token plus one
for the position (and for the token's type): these are the new tables, and that layer's norm the one behind them. The
layers are gone, and what they knew of each token is looked up, at the cost of the lookup that was there before. Tokens
that the texts lack are rare words and their pieces, which matter to whoever looks for names: their rows follow from
what the layers make of each token on its own, by the linear map that fits this to the rows that are known.

Related: Gupta and Jaggi 2021 (arXiv 2106.06766) and Bommasani et al. 2020 average contextual vectors to static ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import StageError
from edgekit.model_config import ModelConfig
from edgekit.nn.capture import capture_inputs
from edgekit.nn.families import Family, family_of
from edgekit.nn.layers import backbone, encoder_layers
from edgekit.nn.surgery import drop_layers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Batch", "Folded", "check_foldable", "fold_layers", "unfoldable"]

Batch = tuple[Mapping[str, "torch.Tensor"], "torch.Tensor"]  # model inputs, and which tokens are no padding
ROUNDS = 4  # of fitting rows and positions in turn
KNOWN = 5  # times a token is seen for its row to teach the others'
PRIOR = 2.0  # times that what follows from the token alone counts as
RIDGE, TINY = 1e-2, 1e-9  # of the mean variance; and where that is none
AT_ONCE = 65536  # tokens
ALONE = 512  # tokens asked for on their own at a time
SAMPLE = 32  # tokens of a batch whose fit is told
LAST = 10  # positions
WORDS, PLACES, KINDS, SUMS = "words", "places", "kinds", "sums"  # tables, and what the last folded norm takes in


@dataclass(frozen=True)
class Folded:
    """`tokens`: seen in the texts; `types`: different ones; `explained`: of what the last folded layer puts out, the
    share of the variance that the tables give."""

    tokens: int
    types: int
    explained: float


def unfoldable(config: ModelConfig) -> str:
    """Why layers of such a model cannot become a table; empty where they can."""
    kind = str(config["model_type"])
    family = family_of(kind)
    if family.pictures:
        return f"{kind} reads pictures: it has no table of tokens"
    if family.group_layers:
        return f"{kind}'s layers share their weights: none of them can go alone"
    if not family.ffn_norm or not family.position_embeddings:
        return f"{kind} has no norm behind each layer and no table of positions"
    if config.get("position_biased_input") is False:
        return f"this {kind} has no table of positions"
    if config.get("embedding_size") not in (None, config.get(family.config_hidden)):
        return f"this {kind}'s tokens are not as wide as its hidden state"
    return ""


def fold_layers(
    model: PreTrainedModel, count: int, batches: Iterable[Batch], around: tuple[list[int], list[int]]
) -> Folded:
    """Put the first `count` layers into the tables of tokens, positions and token types, in place, and drop them.

    `batches`: real texts; `around`: ids of the special tokens before and after a text. Raises StageError as
    `check_foldable` does.
    """
    import torch

    check_foldable(model)
    root, family = backbone(model)
    parts, layers = _Parts.of(root, family, count), list(range(len(encoder_layers(model))))
    with torch.no_grad(), _shortened(root, family, count):
        seen = _Seen.of(model, parts, batches)
        tables = seen.solve()
        tables[WORDS] = _with_unseen(tables[WORDS], seen.times(WORDS), _alone(model, parts, around, tables))
        explained = seen.explained(tables, parts.norm)
    with torch.no_grad():
        for name, module in parts.tables.items():
            module.weight.copy_(tables[name])
        parts.embedding_norm.load_state_dict(parts.norm.state_dict())
    drop_layers(model, layers[count:])
    return Folded(len(seen.ids[WORDS]), int((seen.times(WORDS) > 0).sum()), explained)


def check_foldable(model: PreTrainedModel) -> None:
    """Raises StageError for a model that has no such tables, or whose table was factorized."""
    from torch import nn

    if why := unfoldable(model.config.to_dict()):
        raise StageError(why, hint="leave fold_layers at 0")
    root, family = backbone(model)
    if not isinstance(root.get_submodule(str(family.word_embeddings)), nn.Embedding):
        raise StageError("the token table is two thin matrices", hint="put factorize after prune")


@dataclass(frozen=True)
class _Parts:
    """The tables whose rows are added, the norm behind them, and the last folded layer's norm."""

    tables: dict[str, nn.Embedding]
    embedding_norm: nn.Module
    norm: nn.Module

    @classmethod
    def of(cls, root: nn.Module, family: Family, count: int) -> _Parts:
        from torch import nn

        paths = {WORDS: family.word_embeddings, PLACES: family.position_embeddings, KINDS: family.type_embeddings}
        modules = {name: module for name, path in paths.items() if (module := _at(root, path)) is not None}
        tables = {name: module for name, module in modules.items() if isinstance(module, nn.Embedding)}
        last = root.get_submodule(f"{family.layers}.{count - 1}.{family.ffn_norm}")
        return cls(tables, root.get_submodule(str(family.embedding_norm)), last)

    @property
    def watched(self) -> dict[str, nn.Module]:
        return {**self.tables, SUMS: self.norm}


def _at(root: nn.Module, path: str | None) -> nn.Module | None:
    """The module, where this model has it: some have no token types."""
    try:
        return root.get_submodule(path) if path else None
    except AttributeError:
        return None


@contextmanager
def _shortened(root: nn.Module, family: Family, count: int) -> Iterator[None]:
    """With the first layers alone."""
    from torch import nn

    layers = root.get_submodule(family.layers)
    root.set_submodule(family.layers, nn.ModuleList(list(layers.children())[:count]))
    try:
        yield
    finally:
        root.set_submodule(family.layers, layers)


@dataclass(frozen=True)
class _Seen:
    """What the texts showed. `ids`: of all tokens, their rows in each table (tokens,); `sums`: of each table's rows,
    what was added up there (rows, width); `some`: of the first tokens of each batch, their places among all, and what
    was added up."""

    ids: dict[str, torch.Tensor]
    sums: dict[str, torch.Tensor]
    some: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel, parts: _Parts, batches: Iterable[Batch]) -> _Seen:
        import torch

        sums = {name: torch.zeros_like(module.weight) for name, module in parts.tables.items()}
        ids: dict[str, list[torch.Tensor]] = {name: [] for name in sums}
        places: list[torch.Tensor] = []
        samples: list[torch.Tensor] = []
        count = 0
        with capture_inputs(parts.watched) as seen:
            for inputs, mask in batches:
                model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                real = mask.to(model.device).bool()
                added = seen[SUMS][real]
                for name, total in sums.items():
                    ids[name].append(seen[name].expand_as(real)[real])
                    total.index_add_(0, ids[name][-1], added)
                samples.append(added[:SAMPLE].clone())
                places.append(torch.arange(count, count + len(samples[-1]), device=model.device))
                count += len(added)
        joined = {name: torch.cat(found) for name, found in ids.items()}
        return cls(joined, sums, (torch.cat(places), torch.cat(samples)))

    def times(self, table: str) -> torch.Tensor:
        """(rows,): how often each row was looked up."""
        return self.ids[table].bincount(minlength=len(self.sums[table]))

    def solve(self) -> dict[str, torch.Tensor]:
        """All tables, fitted in turn: each to what the others leave. Rows that were not seen are 0; positions that were
        not are the mean of the last ten that were."""
        import torch

        tables = {name: torch.zeros_like(total) for name, total in self.sums.items()}
        for _ in range(ROUNDS):
            for name in tables:
                tables[name] = self._rest(name, tables) / self.times(name).clamp_min(1)[:, None]
        visits = self.times(PLACES)
        tables[PLACES][visits == 0] = tables[PLACES][torch.nonzero(visits)[-LAST:, 0]].mean(0)
        return tables

    def _rest(self, name: str, tables: dict[str, torch.Tensor]) -> torch.Tensor:
        """A table's sums, less what the other tables explain of them."""
        rest = self.sums[name].clone()
        for start in range(0, len(self.ids[name]), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            for other in tables.keys() - {name}:
                rest.index_add_(0, self.ids[name][part], tables[other][self.ids[other][part]], alpha=-1)
        return rest

    def explained(self, tables: dict[str, torch.Tensor], norm: nn.Module) -> float:
        """Share of the variance behind the norm, of some of the tokens. (Before it a few large sums are most of it.)"""
        places, added = self.some
        fitted = sum(table[self.ids[name][places]] for name, table in tables.items())
        real = norm(added)
        left = (norm(fitted) - real).double().square().sum()
        return 1 - float(left / (real - real.mean(0)).double().square().sum())


def _alone(
    model: PreTrainedModel, parts: _Parts, around: tuple[list[int], list[int]], tables: dict[str, torch.Tensor]
) -> torch.Tensor:
    """(vocabulary, width): what the layers make of each token as a whole text, less its position's and type's share."""
    import torch

    found = torch.zeros_like(tables[WORDS])
    before, after = (torch.tensor(ids, dtype=torch.long, device=found.device) for ids in around)
    with capture_inputs(parts.watched) as seen:
        for start in range(0, len(found), ALONE):
            ids = torch.arange(start, min(start + ALONE, len(found)), device=found.device)
            text = torch.cat([before.expand(len(ids), -1), ids[:, None], after.expand(len(ids), -1)], dim=1)
            model(input_ids=text, attention_mask=torch.ones_like(text))
            found[ids] = seen[SUMS][:, len(before)]
            for other in tables.keys() - {WORDS}:
                found[ids] -= tables[other][seen[other].expand_as(text)[:, len(before)]]
    return found


def _with_unseen(rows: torch.Tensor, times: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """Rows of all tokens: the less often one was seen, the more it is what follows from the token alone.

    That is by a linear map with an intercept, fitted to the rows that are known, each as often as it was seen; near the
    identity where those are few.
    """
    import torch

    count, known = times[:, None].to(rows), times >= KNOWN
    guess = alone
    if known.any():
        weight = count[known]
        x_mean, y_mean = ((weight * z[known]).sum(0) / weight.sum() for z in (alone, rows))
        x = (alone[known] - x_mean) * weight.sqrt()
        change = (rows[known] - y_mean) * weight.sqrt() - x
        normal = x.T @ x
        normal.diagonal().add_(RIDGE * normal.diagonal().mean() + TINY)
        guess = alone - x_mean
        guess = guess + guess @ torch.linalg.solve(normal, x.T @ change) + y_mean
    mixed: torch.Tensor = (count * rows + PRIOR * guess) / (count + PRIOR)
    return mixed
