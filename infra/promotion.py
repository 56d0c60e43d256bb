"""The very package that one stage runs, to be released to another stage."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import DeployError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OWN_SOURCES = ("app.py", "chalicelib/")


def code_key(template: dict[str, Any]) -> str:
    """Return the object key of the code in the template of a released stage.

    Raises ``DeployError`` if the functions have none, or do not all have the same.
    """
    keys = {
        resource["Properties"]["CodeUri"]["Key"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    if len(keys) != 1:
        raise DeployError(f"The functions run {len(keys)} packages instead of one.")
    return str(keys.pop())


def download(s3: S3Client, bucket: str, key: str, account: str, target: Path) -> None:
    """Write a package to ``target``. Raises ``DeployError`` if the bucket has it no more."""
    try:
        found = s3.get_object(Bucket=bucket, Key=key, ExpectedBucketOwner=account)
    except (s3.exceptions.NoSuchKey, s3.exceptions.NoSuchBucket) as error:
        raise DeployError(f"{bucket} no longer has the package {key}.") from error
    target.write_bytes(found["Body"].read())


def require_same_sources(made: Path, promoted: Path) -> None:
    """Raise ``DeployError`` unless two packages have the same code of ours.

    The template comes from the checkout. It fits the promoted code only if that is the
    checkout's. The libraries may differ: those of the promoted package are released.
    """
    if _sources(made) != _sources(promoted):
        raise DeployError(
            "This checkout is not what that stage runs: check out the commit that was released "
            "there, because the template is made from it."
        )


def _sources(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith(_OWN_SOURCES) and not name.endswith("/")
        }
