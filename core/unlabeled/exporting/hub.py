"""A folder on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from unlabeled.errors import UserError, one_line, optional


def _api() -> Any:
    """The hub, with the token that `hf auth login` left or HF_TOKEN holds.

    Raises:
        UserError: huggingface_hub is not installed.
    """
    return optional("huggingface_hub", "huggingface_hub", "--push", "export").HfApi()


def check_push(name: str) -> None:
    """Raises UserError, before anything is written, where a push cannot work."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"--push takes OWNER/NAME, not {name!r}")
    _api()


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a folder's files as a repository; returns its address.

    Raises:
        UserError: the hub refuses or cannot be reached, or the repository is there and public where --private is asked.
    """
    api = _api()
    try:
        url = str(api.create_repo(name, private=private, exist_ok=True))
        open_to_all = private and not api.repo_info(name).private
        if not open_to_all:
            api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Upload an encoder of unlabeled")
    except Exception as error:  # the hub has an error for each of: no network, no token, not allowed
        raise UserError(
            f"{folder} is written, and the hub did not take it as {name} ({one_line(error)}); see `hf auth login`"
        ) from None
    if open_to_all:
        raise UserError(f"{folder} is written and not uploaded: {name} is there already, and public")
    return url
