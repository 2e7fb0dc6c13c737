"""Methods on a toy encoder: they learn, are refused by name, are saved whole, and stand half precision."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from toy import CLOCK, SMALL, ToyEncoder, forward, keys, method, views
from unlabeled.contract import Batch, Kind
from unlabeled.errors import UserError
from unlabeled.masking import RandomMask
from unlabeled.methods import METHODS, Method, Part, Views, use
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.randomness import Draws
from unlabeled.refusal import method_needs
from unlabeled.schedules import Clock, cosine

NAMES = sorted(METHODS)
INSTANCES = [name for name in NAMES if "tokens" not in method_needs(METHODS[name], core())]
EIGHT = ("simclr", "byol", "simsiam", "barlow", "vicreg", "dino", "mae", "ijepa")  # known to need others, or not
START = Clock(step=0, steps=100, epoch_steps=10)


def objective(row: Method, **options: bool) -> Objective:
    return Objective(ToyEncoder(**options), row, core(), ("mine", "toy"), transforms=2).train()


def learn(
    made: Objective, batches: Mapping[Kind, Batch], steps: int, rate: float = 3e-3, start: int = 0
) -> list[Tensor]:
    """Losses of some steps on one batch with one mask."""
    optimizer = torch.optim.Adam([weight for weight in made.parameters() if weight.requires_grad], rate)
    losses = []
    for step in range(start, start + steps):
        clock = Clock(step, 100, 20)
        loss = forward(made, batches, clock)["loss"]
        optimizer.zero_grad()
        loss.backward()
        made.after_backward(clock)
        optimizer.step()
        made.after_step(clock)
        losses.append(loss.detach())
    return losses


def test_every_method_is_tested() -> None:
    assert set(SMALL) == set(METHODS)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_learns(name: str, norm: bool) -> None:
    row = method(name)
    made = objective(row, norm=norm)
    learn(made, views(row), 30, rate=0.0)  # DINO's centre settles first: before it, its loss is low and means nothing
    losses = torch.stack(learn(made, views(row), 24))
    assert losses.isfinite().all()
    assert losses[-4:].mean() < 0.95 * losses[:2].mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_that_may_learn_gets_a_gradient(name: str) -> None:
    row = method(name)
    made = objective(row)
    forward(made, views(row), START)["loss"].backward()
    for weight, value in made.named_parameters():
        assert value.requires_grad == (value.grad is not None), weight
        assert value.requires_grad == ("teacher" not in weight), weight


@pytest.mark.parametrize("name", INSTANCES)
def test_instance_methods_need_no_tokens(name: str) -> None:
    row = method(name)
    with_tokens, without = objective(row), objective(row, has_tokens=False)
    without.load_state_dict(with_tokens.state_dict())
    batches = views(row)
    assert torch.equal(forward(without, batches, START)["loss"], forward(with_tokens, batches, START)["loss"])


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_as_in_float32(name: str) -> None:
    row = method(name)
    made = objective(row, norm=True)
    batches = views(row, samples=16)
    goal = forward(copy.deepcopy(made), batches, START)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        out = forward(made, batches, START)
    out["loss"].backward()
    assert out["loss"].dtype == torch.float32
    torch.testing.assert_close(out["loss"], goal, rtol=0.03, atol=0.01)
    assert all(weight.grad.isfinite().all() for weight in made.parameters() if weight.grad is not None)


def backends() -> Iterator[tuple[str, str]]:
    """Every method traced by dynamo; the first with its terms differentiated by AOTAutograd too, which is slow."""
    seen: set[tuple[str, ...]] = set()
    for name in NAMES:
        terms = tuple(part.name for part in method(name).terms)
        yield name, "eager" if terms in seen else "aot_eager"
        seen.add(terms)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what dynamo looks at
@pytest.mark.parametrize(("name", "backend"), list(backends()))
def test_compiled_terms_are_the_same(name: str, backend: str) -> None:
    """What a C++ compiler makes of it is left to torch."""
    torch._dynamo.reset()
    row = method(name)
    made = objective(row)
    batches = views(row)
    compiled = copy.deepcopy(made)
    for term in compiled.terms.values():
        term.compile(backend=backend)
    goal, out = (forward(one, batches, START)["loss"] for one in (made, compiled))
    torch.testing.assert_close(out, goal)
    goal.backward(), out.backward()
    for weight, other in zip(made.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, weight.grad, rtol=1e-4, atol=1e-6)


class Dead(ToyEncoder):
    """An encoder all of whose instances are zero, and which still has a gradient."""

    def forward(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        out = super().forward(*args, **kwargs)  # type: ignore[arg-type]
        return type(out)(out.tokens, out.instances * 0)


@pytest.mark.parametrize("name", INSTANCES)
def test_zero_embeddings_are_finite(name: str) -> None:
    row = method(name)
    made = Objective(Dead(), row, core(), transforms=2)
    loss = forward(made, views(row), START)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in made.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_works_or_is_refused_by_name(name: str) -> None:
    row = method(name)
    batches = views(row, samples=1)
    made = objective(row)
    said = ""
    try:
        assert forward(made, batches, START)["loss"].isfinite()
    except UserError as error:
        said = str(error)
    assert not said or re.search(r"term '\w+'.*--batch-size", said)
    assert bool(said) == (name in ("simclr", "byol", "simsiam", "barlow", "vicreg")) or name not in EIGHT


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_the_next_steps_are_equal(name: str) -> None:
    row = method(name)
    batches = views(row)
    made = objective(row, norm=True)
    learn(made, batches, 3)
    other = objective(row, norm=True)
    assert not torch.equal(next(other.parameters()), next(made.parameters()))
    other.load_state_dict(copy.deepcopy(made.state_dict()))
    goals = learn(made, batches, 3, start=3)
    assert torch.equal(torch.stack(learn(other, batches, 3, start=3)), torch.stack(goals))
    for key, value in made.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_the_teacher_follows_the_encoder_and_the_heads_along_a_cosine() -> None:
    made = objective(method("byol", ema__momentum=0.9, ema__end=0.95), norm=True)
    term = made.terms["regress"]
    pairs = [(made.teacher.module, made.encoder), (term.teacher_heads["projector"].module, term.projector)]
    for step in (0, 50, 100):
        for _, student in pairs:
            for value in student.state_dict().values():
                value.add_(1) if not value.is_floating_point() else value.normal_()
        before = [copy.deepcopy(teacher.state_dict()) for teacher, _ in pairs]
        made.after_step(Clock(step, 100, 10))
        momentum = cosine(step, 100, 0.9, 0.95)
        assert momentum == pytest.approx({0: 0.9, 50: 0.925, 100: 0.95}[step])
        for (teacher, student), old in zip(pairs, before, strict=True):
            for key, value in teacher.state_dict().items():
                theirs = student.state_dict()[key]
                goal = momentum * old[key] + (1 - momentum) * theirs if theirs.is_floating_point() else theirs
                torch.testing.assert_close(value, goal)


def test_the_shared_and_the_held_teacher_have_no_copy() -> None:
    for name in ("simclr", "simsiam"):
        made = objective(method(name))
        assert made.teacher is None
        assert not [key for key in made.state_dict() if "teacher" in key]


def test_holding_the_teacher_still_matters() -> None:
    row = method("simsiam")
    batches = views(row)
    grads = []
    for teacher in ("stop_gradient", "shared"):
        torch.manual_seed(0)
        made = objective(Method(row.views, row.terms, teacher=Part(teacher)))
        made(batches, keys(batches), CLOCK)["loss"].backward()
        grads.append(made.encoder.enter.weight.grad)
    assert not torch.allclose(*grads)


def test_each_view_goes_through_each_branch_once() -> None:
    made = objective(method("dino"))
    batches = views(made.method)
    made(batches, keys(batches), CLOCK)
    assert (made.encoder.calls, made.teacher.module.calls) == (2, 1), "global and local; global"


def test_several_masks_share_one_teacher_pass() -> None:
    one, four = objective(method("ijepa")), objective(method("ijepa", context_targets__masks=4))
    batches = views(four.method)
    four.load_state_dict(one.state_dict())
    passes = four.look(batches, keys(batches), CLOCK)
    assert (four.encoder.calls, four.teacher.module.calls) == (4, 1)
    masks = [look.hidden.hidden for look in passes.student["plain"]]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4
    first = one.look(batches, keys(batches), CLOCK).student["plain"][0].hidden.hidden
    assert torch.equal(masks[0], first), "more masks leave the first as it was"
    whole = four.terms["latent"](passes)["loss"]
    parts = [
        four.terms["latent"](type(passes)("ema", {"plain": [look]}, passes.teacher, CLOCK))["loss"]
        for look in passes.student["plain"]
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_without_an_ema_the_teacher_is_a_whole_pass_of_the_student_only_where_asked() -> None:
    row = method("ijepa")
    for teacher, calls in (("stop_gradient", 2), ("shared", 2)):
        made = objective(Method(row.views, row.terms, row.hide, Part(teacher)))
        batches = views(row)
        passes = made.look(batches, keys(batches), CLOCK)
        assert made.encoder.calls == calls
        assert passes.teacher["plain"].hidden is None
        assert passes.teacher["plain"].latent.requires_grad == (teacher == "shared")
    made = objective(method("mae"))
    made(views(made.method), keys(views(made.method)), CLOCK)
    assert made.encoder.calls == 1


def test_a_held_teacher_sees_what_is_hidden_from_the_student() -> None:
    row = Method(Views(global_=2), (use("regress", predictor=False),), use("random", ratio=0.5), Part("stop_gradient"))
    made = objective(row).eval()
    batches = views(row)
    passes = made.look(batches, keys(batches), CLOCK)
    student, teacher = made.terms["regress"].project(passes)
    assert not torch.allclose(student[0], teacher[0])
    whole = made.encoder(made.encoder.tokenize(batches["global"])).instances
    goal = made.terms["regress"].projector(whole).unflatten(0, (2, -1))
    torch.testing.assert_close(torch.stack(teacher), goal.detach())


def test_the_mask_is_that_of_the_samples_keys() -> None:
    made = objective(method("mae"))
    batches = views(made.method)
    own = keys(batches)
    look = made.look(batches, own, CLOCK).student["plain"][0]
    goal = RandomMask(0.75)(look.tokens, Draws(own["plain"]).fork("mask").fork(0))
    assert torch.equal(look.hidden.hidden, goal.hidden)
    other = made.look(batches, keys(batches, seed=1), CLOCK).student["plain"][0]
    assert not torch.equal(other.hidden.hidden, goal.hidden)


def test_the_order_of_the_views_in_the_mapping_does_not_matter() -> None:
    made = objective(method("dino"))
    batches = views(made.method)
    turned = dict(reversed(batches.items()))
    own = keys(batches)
    assert torch.equal(made(turned, own, CLOCK)["loss"], made(batches, own, CLOCK)["loss"])


def test_terms_are_weighed_and_share_the_passes() -> None:
    row = Method(
        Views(global_=2), (use("contrast", 2.0, out=8), use("vicreg", 0.5, hidden=8), use("contrast", 1.0, out=4))
    )
    made = objective(row)
    batches = views(row)
    out = made(batches, keys(batches), CLOCK)
    goal = 2 * out["contrast/loss"] + 0.5 * out["vicreg/loss"] + out["contrast2/loss"]
    torch.testing.assert_close(out["loss"].detach(), goal)
    assert made.encoder.calls == 1
    assert not any(value.requires_grad for name, value in out.items() if name != "loss")
    assert {"contrast/std", "contrast2/std", "vicreg/covariance"} <= set(out)


def test_terms_without_a_teacher_work_beside_one() -> None:
    row = Method(Views(global_=2), (use("contrast", out=8), use("regress", hidden=8, out=4)), teacher=Part("ema"))
    made = objective(row)
    out = made(views(row), keys(views(row)), CLOCK)
    torch.testing.assert_close(out["loss"].detach(), out["contrast/loss"] + out["regress/loss"])
    assert not made.terms["contrast"].teacher_heads


def test_batch_norms_of_the_encoder_become_the_cores() -> None:
    assert type(objective(method("simclr"), norm=True).encoder.norm) is not nn.BatchNorm1d


def refusal(row: Method, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        objective(row, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in INSTANCES])
def test_a_method_of_tokens_names_itself_the_encoder_and_a_way_out(name: str) -> None:
    said = refusal(method(name), has_tokens=False)
    assert "'mine'" in said
    assert "'toy'" in said
    for other in NAMES:
        assert (other in said) == (other in INSTANCES), other


VIEWS, CONTRAST = Views(global_=2), (use("contrast"),)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Method(VIEWS, CONTRAST, teacher=Part("emma")), ["'mine'", "'emma'", "did you mean ema"]),
        (Method(VIEWS, CONTRAST, teacher=use("ema", speed=1)), ["'ema'", "'speed'", "momentum, end"]),
        (Method(VIEWS, ()), ["'mine'", "no terms", "contrast"]),
        (Method(VIEWS, (use("contrst"),)), ["'contrst'", "did you mean contrast"]),
        (Method(VIEWS, (use("contrast", temprature=1),)), ["'contrast'", "'temprature'", "did you mean temperature"]),
        (Method(Views(global_=1), CONTRAST), ["'mine'", "fewer than two", "views.global=2"]),
        (Method(Views(), CONTRAST), ["'mine'", "no view"]),
        (Method(Views(plain=-1, global_=2), CONTRAST), ["'mine'", "views.plain=1"]),
        (Method(Views(local=2), (use("regress"),), teacher=Part("ema")), ["'mine'", "more than local"]),
        (Method(Views(local=1), (use("rebuild"),), use("random")), ["'mine'", "more than local"]),
        (Method(Views(plain=1), (use("rebuild"),)), ["'mine'", "has no mask", "block", "context_targets", "random"]),
        (Method(Views(plain=1), (use("rebuild"),), use("randm")), ["'randm'", "did you mean random"]),
        (Method(Views(plain=1), (use("rebuild"),), use("random", ration=1)), ["'ration'", "did you mean ratio"]),
        (Method(Views(plain=1), (use("rebuild"),), use("random", masks=0)), ["random.masks", "1 or more"]),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(row: Method, words: list[str]) -> None:
    said = refusal(row)
    assert [word for word in words if word not in said] == [], said


def test_options_replace_options() -> None:
    row = METHODS["dino"].with_options(
        {"prototypes.prototypes": 7, "prototypes.weight": "2", "views.local": 3, "views.global": 4, "ema.momentum": 0.5}
    )
    assert row.terms[0] == Part("prototypes", {"prototypes": 7}, 2.0)
    assert row.views == Views(global_=4, local=3)
    assert row.teacher.options == {"momentum": 0.5, "end": 1.0}
    assert METHODS["dino"].terms[0] == Part("prototypes")
    assert METHODS["mae"].with_options({"random.ratio": 0.6}).hide == use("random", ratio=0.6)
    assert METHODS["mae"].with_options({}) == METHODS["mae"]
    (rebuild,) = METHODS["maskfeat"].with_options({"rebuild.target": "hog", "rebuild.target.cell": 4}).terms
    assert rebuild.options["target"] == {"name": "hog", "cell": 4}
    (rebuild,) = METHODS["maskfeat"].with_options({"rebuild.target.cell": 4}).terms
    assert rebuild.options["target"] == {"name": "default", "cell": 4}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 1}, "part.option=value.*contrast"),
        ({"contrst.temperature": 1}, "'contrst'.*did you mean contrast"),
        ({"views.locals": 1}, "'locals'.*plain, global, local"),
        ({"views.local": "many"}, "views.local is a number, not 'many'"),
        ({"contrast.weight": "much"}, "contrast.weight is a number, not 'much'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        METHODS["simclr"].with_options(options)


def test_only_terms_have_weights() -> None:
    assert "'weight'" in refusal(METHODS["mae"].with_options({"random.weight": 2}))


def test_prepare_is_asked_for_only_where_a_term_has_it() -> None:
    made = objective(method("simclr"))
    assert not made.needs_prepare()
    heard = []
    term = type(made.terms["contrast"])

    class Preparing(term):  # type: ignore[misc, valid-type]
        def prepare(self, clock, survey):  # type: ignore[no-untyped-def]
            heard.append((clock, survey))

    made.terms["contrast"].__class__ = Preparing
    assert made.needs_prepare()
    sweep = object()
    made.prepare(CLOCK, sweep)  # type: ignore[arg-type]
    assert heard == [(CLOCK, sweep)]
