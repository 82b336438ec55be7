"""A store's address and credentials as the environment variables that its own clients know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prefect_jobs.blocks.object_store import ObjectStore
from prefect_jobs.errors import TemplateError

# By scheme: the option of fsspec's file system, and the variables that say the same.
_PLAIN: dict[str, dict[str, tuple[str, ...]]] = {
    "s3": {"endpoint_url": ("AWS_ENDPOINT_URL",), "region_name": ("AWS_REGION", "AWS_DEFAULT_REGION")},
    "az": {"account_name": ("AZURE_STORAGE_ACCOUNT_NAME",)},
}
_SECRET: dict[str, dict[str, tuple[str, ...]]] = {
    "s3": {
        "key": ("AWS_ACCESS_KEY_ID",),
        "secret": ("AWS_SECRET_ACCESS_KEY",),
        "token": ("AWS_SESSION_TOKEN",),
    },
    "az": {
        "account_key": ("AZURE_STORAGE_ACCOUNT_KEY",),
        "connection_string": ("AZURE_STORAGE_CONNECTION_STRING",),
        "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
    },
}


@dataclass(frozen=True)
class Access:
    """What a container with a client of its own needs to reach a store."""

    env: dict[str, str]
    secrets: dict[str, str]

    def __repr__(self) -> str:
        return f"Access({sorted({*self.env, *self.secrets})})"


def access_to(block: ObjectStore) -> Access:
    """The variables of a store.

    Raises:
        TemplateError: clients of that kind of store take no credentials from the environment.
    """
    scheme = urlsplit(block.url).scheme
    if scheme not in _SECRET:
        raise TemplateError(
            f"the credentials of {block.label} cannot be handed to a container as environment variables: that is "
            f"possible for {' and '.join(f'{name}://' for name in _SECRET)}; leave store.credentials out, and let the "
            "job take them as a secret of its own"
        )
    secrets = block.credentials.get_secret_value() if block.credentials else {}
    options: Mapping[str, Any] = {**block.options, **(block.options.get("client_kwargs") or {}), **secrets}
    return Access(_named(_PLAIN[scheme], options), _named(_SECRET[scheme], options))


def _named(variables: Mapping[str, tuple[str, ...]], options: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(options[key]) for key, names in variables.items() if options.get(key) for name in names}
