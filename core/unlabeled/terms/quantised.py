"""Which quantised embedding stands here? wav2vec 2.0 (arXiv 2006.11477)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Look, Passes
from unlabeled.collectives import sum_over_ranks, uneven_mean
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.masking import by_sample, per_sample, places, rows_of
from unlabeled.normaliser import unit
from unlabeled.randomness import Draws, sample_keys
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term, by_rows, hidden_reader, read_hidden

CHUNK = 1 << 24  # numbers of distractors held at once, 64 MB in float32
NOISE, OTHERS = 0, 1  # streams of chance, as numbers: dynamo does not trace the hash of a name
COOLED = 0.7  # of the run; in the paper 0.999995 a step leads from 2 to .5 in 277,000 of 400,000


class Quantised(Term):
    """A hidden token's prediction finds the quantised embedding of its place among those of its sample's others.

    Embeddings at the mixing point choose one entry of each of `books` codebooks, by Gumbel noise and straight through;
    the entries side by side, through a linear map, are what is looked for, by cosines over τ, among `distractors` other
    hidden places of the same sample, drawn with replacement; those of the same entries do not count. Added is
    `diversity` × (entries − perplexity)/entries of the entries that the batch's hidden places would choose on average,
    as in the authors' code (the paper has the entropy itself). Noise and distractors depend on sample and step alone.

    Args:
        books: codebooks, G.
        codes: entries of each, V.
        code_width: of all books' entries side by side.
        out: width in which predictions meet quantised embeddings.
        temperature: τ of the cosines.
        distractors: K.
        diversity: weight of the penalty.
        gumbel: temperature of the choice, from the first to the second over the run's first 70 %.
        width, depth: of a predictor over seen and wanted tokens; depth 0 reads tokens hidden in place.
    """

    needs = frozenset({"tokens", "hidden", "embed"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        books: int = 2,
        codes: int = 320,
        code_width: int = 256,
        out: int = 256,
        temperature: float = 0.1,
        distractors: int = 100,
        diversity: float = 0.1,
        gumbel: tuple[float, float] = (2.0, 0.5),
        width: int | None = None,
        depth: int = 0,
    ):
        super().__init__(encoder)
        if min(books, codes - 1, distractors) < 1 or code_width % books:
            raise UserError(
                f"quantised needs 1 book, 2 codes, 1 distractor or more, and a code_width that its books divide, not "
                f"{books}, {codes}, {distractors} and {code_width}"
            )
        if min(gumbel) <= 0:
            raise UserError(f"quantised.gumbel is two temperatures above 0, not {gumbel}")
        self.temperature, self.distractors, self.diversity, self.gumbel = temperature, distractors, diversity, gumbel
        self.choose = nn.Linear(encoder.embed_width, books * codes)
        nn.init.normal_(self.choose.weight)  # as the authors': what is chosen depends on content, not on noise alone
        nn.init.zeros_(self.choose.bias)
        self.entries = nn.Parameter(torch.rand(books, codes, code_width // books))
        self.projector = nn.Linear(code_width, out)
        self.predictor = hidden_reader(encoder, out, width, depth)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        assert passes.embed is not None, "an encoder without a mixing point is refused before the first step"
        losses: list[Tensor] = []
        right: list[Tensor] = []
        spent: list[Tensor] = []
        for look, _ in passes.masked():
            assert look.hidden is not None
            embedded = passes.embed(look.tokens)
            draws = _draws(passes, look)
            for number, wanted in enumerate(look.hidden.targets):
                guess = read_hidden("quantised", self.predictor, look, wanted)[wanted]
                with torch.autocast(guess.device.type, enabled=False):
                    chance = _Chance(look, wanted, draws.fork(number))
                    error, found, perplexity = self._find(guess.float(), embedded[wanted].float(), chance, passes.clock)
                spent.append(perplexity)
                losses.append(uneven_mean(error))
                right.append(uneven_mean(found))
        perplexity = torch.stack(spent).mean()
        unused = 1 - perplexity / self.entries[..., 0].numel()
        loss = torch.stack(losses).mean() + self.diversity * unused
        return {"loss": loss, "accuracy": torch.stack(right).mean(), "perplexity": perplexity.detach()}

    def _find(self, guess: Tensor, embedded: Tensor, chance: _Chance, clock: Clock) -> tuple[Tensor, Tensor, Tensor]:
        """Of T wanted places: [T] errors, [T] whether the right one was found, [] perplexity summed over books."""
        scores = self.choose(embedded).unflatten(-1, self.entries.shape[:2])  # [T, G, V]
        noise = chance.gumbel(*scores.shape[1:]) if self.training else 0
        soft = ((scores + noise) / self.cooled(clock)).softmax(-1)
        chosen = soft.argmax(-1)
        straight = F.one_hot(chosen, soft.shape[-1]) + soft - soft.detach()
        codes = unit(self.projector(torch.einsum("tgv,gvc->tgc", straight, self.entries).flatten(1)))
        others = chance.others(self.distractors)
        same = (others < 0) | (chosen[others] == chosen[:, None]).all(-1)

        def cosines(guess: Tensor, own: Tensor, others: Tensor, same: Tensor) -> Tensor:
            far = torch.einsum("to,tko->tk", guess, codes[others]).masked_fill(same, -torch.inf)
            return torch.cat([(guess * own).sum(1, keepdim=True), far], 1) / self.temperature

        columns = self.distractors * codes.shape[1]
        logits = by_rows(cosines, columns, CHUNK, unit(guess), codes, others, same)
        count = sum_over_ranks(torch.tensor(float(len(scores)), device=scores.device))
        average = sum_over_ranks(scores.softmax(-1).sum(0)) / count.clamp(min=1)
        perplexity = (-(average * average.clamp(min=1e-7).log()).sum(-1)).exp().sum()
        return -logits.log_softmax(1)[:, 0], (logits.argmax(1) == 0).to(logits), perplexity

    def cooled(self, clock: Clock) -> float:
        """Temperature of the choice at a step, on the geometric path between the two."""
        first, last = self.gumbel
        return float(first * (last / first) ** min(clock.step / max(COOLED * clock.steps, 1), 1.0))


def _draws(passes: Passes, look: Look) -> Draws:
    """Chance of each sample at this step, view after view."""
    one = look.instances[0]
    numbers = torch.arange(len(one), device=one.device) if passes.samples is None else passes.samples
    keys = Draws(sample_keys(0, passes.clock.step, numbers))
    return rows_of(look.tokens, Draws(torch.cat([keys.fork(view).keys for view in range(look.views)])))


class _Chance:
    """What is drawn for T wanted places: from each one's sample and its place there, in whatever batch it is."""

    def __init__(self, look: Look, wanted: Tensor, rows: Draws):
        self.rows = rows
        owner, _ = per_sample(look.tokens)
        self.owner, self.place = owner[wanted], places(owner)[wanted]

    def _uniform(self, label: int, count: int) -> Tensor:  # [T, count]
        place = self.place[:, None] * count + torch.arange(count, device=self.place.device)
        return self.rows.fork(label).uniform_at(self.owner[:, None].expand_as(place), place)

    def gumbel(self, *shape: int) -> Tensor:
        """[T, *shape] standard Gumbel noise."""
        even = self._uniform(NOISE, math.prod(shape)).unflatten(1, shape).clamp(min=1e-7)
        noise: Tensor = -(-even.log()).clamp(min=1e-7).log()
        return noise

    def others(self, count: int) -> Tensor:
        """[T, count] numbers among the T of other places of the same sample; −1 where there are none."""
        order, first = by_sample(self.owner)
        size = torch.bincount(self.owner)[self.owner][:, None]
        step = 1 + (self._uniform(OTHERS, count) * (size - 1)).long()
        ahead = (places(self.owner)[:, None] + step) % size
        return torch.where(size > 1, order[first[self.owner][:, None] + ahead], -1)
