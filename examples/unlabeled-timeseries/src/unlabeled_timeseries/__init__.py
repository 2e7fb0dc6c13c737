"""Multichannel signals for unlabeled: EEG, ECG, wearables."""

from unlabeled.hookspecs import hookimpl


@hookimpl
def unlabeled_readers():
    from unlabeled_timeseries.readers import Recordings

    return {"recordings": Recordings}


@hookimpl
def unlabeled_views():
    from unlabeled_timeseries.views import Jitter

    return {"jitter": Jitter}


@hookimpl
def unlabeled_encoders():
    from unlabeled_timeseries.encoders import PatchTransformer

    return {"patch_transformer": PatchTransformer}


@hookimpl
def unlabeled_recipes():
    return {"default": {"epochs": 100, "batch_size": 64, "lr": 1e-3}}


@hookimpl
def unlabeled_example(folder):
    from unlabeled_timeseries.example import write

    return write(folder)
