"""Bring a stage up, one of two ways, and take it down.

The resources stack comes first either way. On it stand the functions and the API, made by
``chalice deploy`` or by a second stack from ``chalice package``; a stage is deployed one way
only, and AWS itself is asked which.
"""

from __future__ import annotations

import enum
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.names import Names
from chalicelib.settings import PRODUCTION
from infra import record
from infra.account import Account
from infra.errors import DeployError
from infra.package import ROOT, is_open, known_stage, package, resources_template, run_chalice
from infra.signing import SigningParameter
from infra.stacks import Say, Stacks

_BATCH = 1_000
"""Objects that one DeleteObjects removes at most (AWS limit)."""


class Way(enum.Enum):
    """How the functions of a stage were deployed."""

    CHALICE = "make deploy"
    PACKAGE = "make release"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One stage in one account. Every step may be repeated."""

    account: Account
    stage: str
    say: Say
    root: Path = ROOT
    poll_s: float = 2.0

    def __post_init__(self) -> None:
        known_stage(self.stage, self.root)

    @property
    def names(self) -> Names:
        """What this stage's resources are called."""
        return Names(self.stage)

    @property
    def application(self) -> str:
        """The stack of a packaged stage's functions and API."""
        return f"{self.names.stack}-app"

    @property
    def bucket(self) -> str:
        """The bucket of the packages. Bucket names are shared by all the world's accounts."""
        return f"{self.names.stack}-packages-{self.account.id}-{self.account.region}"

    @property
    def is_open(self) -> bool:
        """Whether the stage asks its callers for no key."""
        return is_open(self.stage, self.root)

    @property
    def secrets(self) -> SigningParameter:
        """The secrets that sign this stage's webhooks."""
        return SigningParameter(self.account.client("ssm"), self.names.signing_secrets, self.say)

    def make_resources(self, alarm_topic: str | None = None) -> None:
        """Make, or bring up to date, what Chalice does not make."""
        template = resources_template()
        # A table that an earlier stack left behind is taken up again: only under a fixed name.
        template["Resources"]["Table"]["Properties"]["TableName"] = self.names.table
        parameters = {"Stage": self.stage}
        if alarm_topic is not None:
            parameters["AlarmTopic"] = alarm_topic
        self._stacks.apply(self.names.stack, template, parameters, adopt=True)

    def deploy(self) -> str:
        """Deploy with ``chalice deploy``; return the API's address."""
        self._refuse(Way.PACKAGE)
        self.make_resources()
        self._run_chalice("deploy")
        apis = [item for item in self._made_by_chalice() if item["name"] == "rest_api"]
        return self._url(apis[0]["rest_api_id"])

    def release(self, folder: Path) -> str:
        """Package into ``folder`` and deploy that with CloudFormation; return the API's address."""
        self._refuse(Way.CHALICE)
        self.make_resources()
        package(self.stage, folder, self.root, for_this_machine=bool(self.account.emulator))
        return self.deploy_package(folder / "sam.json", folder / "deployment.zip")

    def deploy_package(self, template: Path, code: Path) -> str:
        """Deploy a package with CloudFormation; return the API's address.

        The resources stack must be there.
        """
        self._refuse(Way.CHALICE)
        document: dict[str, Any] = json.loads(template.read_text(encoding="utf-8"))
        place = {"Bucket": self.bucket, "Key": self._upload(code)}
        for resource in document["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = place
        self._stacks.apply(self.application, document, {"Stage": self.stage})
        return self._url(self._stacks.outputs(self.application)["RestAPIId"])

    def destroy(self) -> None:
        """Remove the stage; the timers of production stay in their table."""
        way = self.way()
        if way is Way.PACKAGE:
            self._stacks.delete(self.application)
        elif way is Way.CHALICE:
            self._run_chalice("delete")
        self._empty_bucket()
        found = self._stacks.delete(self.names.stack)
        # After the functions: without it they would send what is due unsigned.
        self.secrets.remove()
        if not found and way is None:
            self.say(f"{self.stage}: nothing is deployed")
        if self.stage == PRODUCTION:
            self.say(f"The table {self.names.table} and its timers, if any, are kept.")
        else:
            self._delete_table()

    def way(self) -> Way | None:
        """Return how the stage is deployed; None if it is not."""
        if self._stacks.exists(self.application):
            return Way.PACKAGE
        return Way.CHALICE if self._made_by_chalice() else None

    def address(self) -> str | None:
        """Return the address of the stage's API, None if there is none."""
        if self._stacks.exists(self.application):
            found = [self._stacks.outputs(self.application).get("RestAPIId")]
        else:
            made = self._made_by_chalice()
            found = [item["rest_api_id"] for item in made if item["name"] == "rest_api"]
        return self._url(found[0]) if found and found[0] else None

    def _refuse(self, other: Way) -> None:
        if self.way() is other:
            raise DeployError(
                f"{self.stage} was deployed with `{other.value}`, and a stage is deployed one way "
                f"only: use that, or `make destroy STAGE={self.stage}` first."
            )

    def _url(self, api: str) -> str:
        """Return the address of the API, without a slash at its end."""
        if self.account.emulator:
            return f"{self.account.emulator}/restapis/{api}/{self.stage}/_user_request_"
        suffix = "amazonaws.com.cn" if self.account.region.startswith("cn-") else "amazonaws.com"
        return f"https://{api}.execute-api.{self.account.region}.{suffix}/{self.stage}"

    def _upload(self, code: Path) -> str:
        """Put the code into the bucket, unless it is there; return its key."""
        key = f"{fingerprint(code)}.zip"
        s3 = self.account.client("s3")
        try:
            s3.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket", "NoSuchKey"):
                raise
            self.say(f"{self.bucket}: uploading {code.stat().st_size / 1e6:.1f} MB")
            try:
                s3.put_object(Bucket=self.bucket, Key=key, Body=code.read_bytes())
            except s3.exceptions.NoSuchBucket as missing:
                raise DeployError(
                    f"There is no bucket {self.bucket}: `make infra STAGE={self.stage}` makes it."
                ) from missing
        return key

    def _empty_bucket(self) -> None:
        s3 = self.account.client("s3")
        try:
            while found := s3.list_objects_v2(Bucket=self.bucket, MaxKeys=_BATCH).get("Contents"):
                s3.delete_objects(
                    Bucket=self.bucket,
                    Delete={"Objects": [{"Key": item["Key"]} for item in found], "Quiet": True},
                )
        except s3.exceptions.NoSuchBucket:
            return

    def _delete_table(self) -> None:
        dynamodb = self.account.client("dynamodb")
        try:
            dynamodb.delete_table(TableName=self.names.table)
        except dynamodb.exceptions.ResourceNotFoundException:
            return
        dynamodb.get_waiter("table_not_exists").wait(TableName=self.names.table)
        self.say(f"{self.names.table}: the table and its timers are removed")

    @property
    def _stacks(self) -> Stacks:
        return Stacks(self.account.client("cloudformation"), self.say, self.poll_s)

    def _made_by_chalice(self) -> list[record.Resource]:
        return record.found(self.account, self.names)

    def _run_chalice(self, command: str) -> None:
        """Run a command of Chalice on what AWS says is there."""
        path = self.root / ".chalice" / "deployed" / f"{self.stage}.json"
        record.write(path, self._made_by_chalice())
        run_chalice([command, "--stage", self.stage], self.account.region, self.root)


def fingerprint(code: Path) -> str:
    """Return a name for the contents of a zip: the same files, whenever packed, have the same."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(code) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            digest.update(f"{entry.filename}\n{entry.file_size}\n".encode())
            digest.update(archive.read(entry))
    return digest.hexdigest()
