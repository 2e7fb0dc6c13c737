"""Every installed domain keeps every promise, and every encoder learns by every method: by the registries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from small import OF_ANOTHER, SMALL
from unlabeled import plugins
from unlabeled.testing import Bench, unable

DOMAINS = sorted({plugin.domain for plugin in plugins.listing()})


def offered(*tables: str) -> list[object]:
    """(domain, name, ...) for everything that the installed domains offer in these tables."""
    found: list[object] = []
    for domain in DOMAINS:
        rows: list[tuple[str, ...]] = [(domain,)]
        for table in tables:
            rows = [(*row, name) for row in rows for name in getattr(plugins.load(domain), table)]
        found += [pytest.param(*row, id="-".join(row)) for row in rows]
    return found


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """A domain with its examples open, once a session."""
    made: dict[str, Bench] = {}

    def get(domain: str) -> Bench:
        if domain not in made:
            made[domain] = Bench(domain, tmp_path_factory.mktemp(domain))
        return made[domain]

    return get


def test_something_is_installed() -> None:
    assert DOMAINS


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_plugin_is_broken_or_lacks_anything(domain: str) -> None:
    assert plugins.load(domain).broken == {}
    assert [plugin.missing for plugin in plugins.listing() if plugin.domain == domain and plugin.missing] == []


@pytest.mark.parametrize(("domain", "name"), offered("readers"))
def test_reader(bench: Callable[[str], Bench], domain: str, name: str) -> None:
    bench(domain).check_reader(name)


@pytest.mark.parametrize(("domain", "name"), offered("views"))
def test_view(bench: Callable[[str], Bench], domain: str, name: str) -> None:
    bench(domain).check_view(name)


ENCODERS = [(domain, name) for domain in DOMAINS for name in plugins.load(domain).encoders]


@pytest.mark.parametrize(
    ("domain", "name"), [pytest.param(*one, id="-".join(one)) for one in ENCODERS if one not in OF_ANOTHER]
)
def test_encoder(bench: Callable[[str], Bench], domain: str, name: str) -> None:
    bench(domain).check_encoder(name)


@pytest.mark.parametrize(("domain", "name"), ENCODERS)
def test_no_domain_of_ours_refuses_a_method(bench: Callable[[str], Bench], domain: str, name: str) -> None:
    here = bench(domain)
    encoder = here.encoder(name, **SMALL.get((domain, name), {}))
    lacks = {
        method: lack
        for method in here.registry.methods
        if (lack := unable(here.registry, here.reader, here.view, encoder, (method, name)))
    }
    assert lacks == {}


FEW = ("simclr", "mae", "ijepa", "dinov2")


def pairs() -> list[object]:
    """Every encoder with every method; of another's code at another size with a few.

    Encoders are small, but for one a method, each in turn, that is as large as it comes.
    """
    rows: list[tuple[str, str, str, dict[str, Any]]] = []
    for domain in DOMAINS:
        methods, mine = plugins.load(domain).methods, [one for one in ENCODERS if one[0] == domain]
        own = [one for one in mine if one not in OF_ANOTHER]
        for turn, method in enumerate(methods):
            rows += [(*one, method, {} if one == own[turn % len(own)] else SMALL.get(one, {})) for one in own]
        rows += [(*one, method, {}) for one in mine if one in OF_ANOTHER for method in FEW]
    return [pytest.param(*row, id="-".join(row[:3])) for row in rows]


def test_another_size_is_the_same_code() -> None:
    for (domain, size), base in OF_ANOTHER.items():
        encoders = plugins.load(domain).encoders
        assert encoders[size].__bases__ == (encoders[base],)  # type: ignore[attr-defined]
        assert {name for name in vars(encoders[size]) if not name.startswith("__")} == set()


@pytest.mark.parametrize(("domain", "encoder", "method", "options"), pairs())
def test_every_encoder_learns_by_every_method(
    bench: Callable[[str], Bench], domain: str, encoder: str, method: str, options: dict[str, Any]
) -> None:
    bench(domain).check_method(encoder, method, **options)
