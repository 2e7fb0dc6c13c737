"""An encoder and a view for the tables of unlabeled."""

from unlabeled.hookspecs import hookimpl


@hookimpl
def unlabeled_encoders():
    from unlabeled_deepsets.encoders import DeepSets

    return {"deepsets": DeepSets}


@hookimpl
def unlabeled_views():
    from unlabeled_deepsets.views import Noise

    return {"noise": Noise}
