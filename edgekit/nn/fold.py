"""The first layers of an encoder, as well as a table can do what they do: one row a token, and one a position.

What those layers make of a token depends most on which token it is, less on where it stands and on its neighbours. So
the sum that the last of them normalizes is fitted, by least squares over real texts, as a row for the token plus one
for the position: these are the new tables, and that layer's norm the one behind them. The layers are gone, and what
they knew of each token is looked up, at the cost of the lookup that was there before. Tokens that the texts lack are
rare words and their pieces, which matter to whoever looks for names: their rows follow from what the layers make of
each token on its own, by the linear map that fits this to the rows that are known.

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

__all__ = ["Batch", "Folded", "fold_layers", "unfoldable"]

Batch = tuple[Mapping[str, "torch.Tensor"], "torch.Tensor"]  # model inputs, and which tokens are no padding
ROUNDS = 4  # of fitting rows and positions in turn
KNOWN = 5  # times a token is seen for its row to teach the others'
PRIOR = 2.0  # times that what follows from the token alone counts as
RIDGE = 1e-2  # of the mean variance
AT_ONCE = 65536  # tokens
ALONE = 512  # tokens asked for on their own at a time


@dataclass(frozen=True)
class Folded:
    """`tokens`: seen in the texts; `types`: different ones; `explained`: share of the variance that the tables have."""

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
    """Put the first `count` layers into the tables of tokens and positions, in place, and drop them.

    `batches`: real texts; `around`: ids of the special tokens before and after a text. Raises StageError for a model
    that has no such tables, or whose table was factorized.
    """
    import torch
    from torch import nn

    root, family = backbone(model)
    if why := unfoldable(model.config.to_dict()):
        raise StageError(why, hint="leave fold_layers at 0")
    parts = _Parts.of(root, family, count)
    if not isinstance(parts.words, nn.Embedding):
        raise StageError("the token table is two thin matrices", hint="put factorize after prune")
    layers = list(range(len(encoder_layers(model))))
    with torch.no_grad(), _shortened(root, family, count):
        fit = _Fit.of(model, parts, batches)
        rows, places = fit.solve()
        rows = _with_unseen(rows, fit, _alone(model, parts, around, places))
    with torch.no_grad():
        parts.words.weight.copy_(rows)
        parts.positions.weight.copy_(places)
        if parts.types is not None:
            parts.types.weight.sub_(parts.types.weight[:1].clone())
        parts.embedding_norm.load_state_dict(parts.norm.state_dict())
    drop_layers(model, layers[count:])
    return Folded(len(fit.ids), int((fit.times > 0).sum()), fit.explained(rows, places))


@dataclass(frozen=True)
class _Parts:
    """The tables, the norm behind them, and the last folded layer's norm."""

    words: nn.Embedding
    positions: nn.Embedding
    types: nn.Embedding | None
    embedding_norm: nn.Module
    norm: nn.Module

    @classmethod
    def of(cls, root: nn.Module, family: Family, count: int) -> _Parts:
        from torch import nn

        paths = (family.word_embeddings, family.position_embeddings, family.embedding_norm, family.type_embeddings)
        words, positions, norm, types = (root.get_submodule(path) if path else None for path in paths)
        last = root.get_submodule(f"{family.layers}.{count - 1}.{family.ffn_norm}")
        assert isinstance(positions, nn.Embedding) and norm is not None
        return cls(words, positions, types, norm, last)  # type: ignore[arg-type]

    def watched(self) -> dict[str, nn.Module]:
        return {"ids": self.words, "places": self.positions, "sums": self.norm}


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


@dataclass
class _Fit:
    """What least squares need: ids and places of all tokens, and the sums of what was seen by each of the two."""

    ids: torch.Tensor  # (tokens,)
    at: torch.Tensor  # (tokens,)
    by_id: torch.Tensor  # (vocabulary, width)
    by_place: torch.Tensor  # (positions, width)
    squares: float

    @classmethod
    def of(cls, model: PreTrainedModel, parts: _Parts, batches: Iterable[Batch]) -> _Fit:
        import torch

        by_id, by_place = torch.zeros_like(parts.words.weight), torch.zeros_like(parts.positions.weight)
        ids, at, squares = [], [], 0.0
        with capture_inputs(parts.watched()) as seen:
            for inputs, mask in batches:
                model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                real = mask.to(model.device).bool()
                ids.append(seen["ids"][real])
                at.append(seen["places"].expand_as(seen["ids"])[real])
                sums = seen["sums"][real]
                by_id.index_add_(0, ids[-1], sums)
                by_place.index_add_(0, at[-1], sums)
                squares += float(sums.double().square().sum())
        return cls(torch.cat(ids), torch.cat(at), by_id, by_place, squares)

    @property
    def times(self) -> torch.Tensor:
        """(vocabulary,): how often each token was seen."""
        return self.ids.bincount(minlength=len(self.by_id))

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and positions, fitted in turn; 0 of tokens that were not seen. Positions that were not seen are the mean
        of the last ten that were."""
        import torch

        places = torch.zeros_like(self.by_place)
        visits = self.at.bincount(minlength=len(places))
        for _ in range(ROUNDS):
            rows = self._rest(self.by_id, self.ids, self.at, places) / self.times.clamp_min(1)[:, None]
            places = self._rest(self.by_place, self.at, self.ids, rows) / visits.clamp_min(1)[:, None]
        unseen = visits == 0
        last = torch.nonzero(visits)[-10:, 0]
        places[unseen] = places[last].mean(0)
        return rows, places

    def _rest(self, sums: torch.Tensor, own: torch.Tensor, other: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """`sums` less what the other table explains of them."""
        rest = sums.clone()
        for some in range(0, len(own), AT_ONCE):
            rest.index_add_(0, own[some : some + AT_ONCE], values[other[some : some + AT_ONCE]], alpha=-1)
        return rest

    def explained(self, rows: torch.Tensor, places: torch.Tensor) -> float:
        """Share of the variance of what was seen that rows and positions have."""
        count = len(self.ids)
        crossed = float((self.by_id * rows).double().sum() + (self.by_place * places).double().sum())
        fitted = 0.0
        for some in range(0, count, AT_ONCE):
            both = rows[self.ids[some : some + AT_ONCE]] + places[self.at[some : some + AT_ONCE]]
            fitted += float(both.double().square().sum())
        variance = self.squares - count * float((self.by_id.double().sum(0) / count).square().sum())
        return 1 - (self.squares - 2 * crossed + fitted) / variance


def _alone(
    model: PreTrainedModel, parts: _Parts, around: tuple[list[int], list[int]], places: torch.Tensor
) -> torch.Tensor:
    """(vocabulary, width): what the layers make of each token as a whole text, less its position."""
    import torch

    found = torch.zeros_like(parts.words.weight)
    before, after = (torch.tensor(ids, device=found.device) for ids in around)
    with capture_inputs(parts.watched()) as seen:
        for start in range(0, len(found), ALONE):
            ids = torch.arange(start, min(start + ALONE, len(found)), device=found.device)
            text = torch.cat([before.expand(len(ids), -1), ids[:, None], after.expand(len(ids), -1)], dim=1)
            model(input_ids=text, attention_mask=torch.ones_like(text))
            place = seen["places"].expand_as(text)[:, len(before)]
            found[ids] = seen["sums"][:, len(before)] - places[place]
    return found


def _with_unseen(rows: torch.Tensor, fit: _Fit, alone: torch.Tensor) -> torch.Tensor:
    """Rows of all tokens: the less one was seen, the more it is what follows from the token alone."""
    import torch

    times = fit.times[:, None].to(rows)
    known = fit.times >= KNOWN
    if not known.any():
        return (times * rows + PRIOR * alone) / (times + PRIOR)
    weight = times[known].sqrt()
    x, y = alone[known], rows[known]
    x_mean, y_mean = ((weight * z).sum(0) / weight.sum() for z in (x, y))
    x, change = (x - x_mean) * weight, (y - y_mean - (x - x_mean)) * weight
    normal = x.T @ x
    normal += RIDGE * normal.diagonal().mean() * torch.eye(len(normal), device=normal.device)
    guess = alone - x_mean
    guess = guess + guess @ torch.linalg.solve(normal, x.T @ change) + y_mean
    mixed: torch.Tensor = (times * rows + PRIOR * guess) / (times + PRIOR)
    return mixed
