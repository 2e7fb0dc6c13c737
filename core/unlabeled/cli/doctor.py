"""`unlabeled doctor`: versions, devices, what is missing and how to get it."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version

from unlabeled import plugins


def run(arguments: list[str]) -> int:
    """Print what a bug report needs; exit status 1 where something is missing or broken."""
    argparse.ArgumentParser("unlabeled doctor", description="Versions, devices, what is missing.").parse_args(arguments)
    print(f"unlabeled  {version('unlabeled')}")
    print(f"python     {platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors")
    for name in _requirements():
        print(f"{name:10} {_installed(name)}")
    _devices()
    healthy = _pairs()
    print("\nplugins")
    for plugin in plugins.listing():
        if plugin.missing:
            print(f"  {plugin.name}: missing {', '.join(plugin.missing)}; mend it with: {plugin.mend}")
            healthy = False
            continue
        try:
            registry = plugins.load(plugin.domain)
        except plugins.PluginError as error:
            print(f"  {plugin.name}: {error}")
            healthy = False
            continue
        cause = registry.broken.get(plugin.name)
        print(f"  {plugin.name}: {cause or 'ok'}")
        healthy = healthy and not cause
    print("\nall is well" if healthy else "\nsomething is missing or broken, see above")
    return 0 if healthy else 1


def _requirements() -> list[str]:
    """Names of the core's own dependencies."""
    names = []
    for line in requires("unlabeled") or []:
        requirement, _, marker = line.partition(";")
        if "extra" not in marker:
            names.append(requirement.split("<")[0].split(">")[0].split("=")[0].split("[")[0].strip())
    return names


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"missing: pip install {name}"


def _devices() -> None:
    import torch

    print(f"threads    {torch.get_num_threads()}")
    if not torch.cuda.is_available():
        print("GPU        none that torch sees; training runs on the CPU")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(number).total_memory / 2**30
        print(f"GPU {number}      {torch.cuda.get_device_name(number)}, {memory:.0f} GiB")


def _pairs() -> bool:
    """Whether torchvision and torchaudio, where installed, import beside this torch."""
    healthy = True
    for name in ("torchvision", "torchaudio"):
        if _installed(name).startswith("missing"):
            continue
        try:
            __import__(name)
            print(f"{name:10} {version(name)}")
        except Exception as error:  # a wheel for another torch fails in many ways
            print(
                f"{name:10} {version(name)} does not import beside this torch ({error}); "
                "reinstall unlabeled with its extra"
            )
            healthy = False
    return healthy
