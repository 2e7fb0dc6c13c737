"""The spectral contrastive loss for unlabeled, and a method of it."""

from unlabeled.hookspecs import hookimpl


@hookimpl
def unlabeled_terms():
    from unlabeled_spectral.terms import Spectral

    return {"spectral": Spectral}


@hookimpl
def unlabeled_methods():
    from unlabeled.methods import Method, Views, use

    row = Method(
        views=Views(global_=2),
        terms=(use("spectral"),),
        paper="2106.04156",
        summary="views agree, those of different samples are at right angles",
    )
    return {"spectral": row}
