"""The deployment of one stage in one of two ways, and its removal.

The resources stack is made first. Then ``chalice deploy`` or a second stack, made with ``chalice
package``, adds the functions and the API. A stage is deployed in one way only. The way is read from
AWS before a deployment.

Each public method checks once whose the resources are. The private methods rely on that.
"""

from __future__ import annotations

import enum
import hashlib
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.aws.names import Names
from chalicelib.settings import PRODUCTION
from infra import chalice_record, promotion
from infra.account import Account
from infra.errors import DeployError
from infra.ownership import Ownership
from infra.package import (
    ROOT,
    TEMPLATE_FILE,
    ZIP_FILE,
    is_open,
    package,
    require_stage,
    run_chalice,
)
from infra.rearm import rearm
from infra.resources import resources_template
from infra.signing_secrets import SigningParameter
from infra.stacks import QUEUE_NAME_TAKEN, Say, StackFailed, Stacks

_MAX_OBJECTS = 1_000
"""The most objects that one DeleteObjects removes (AWS limit)."""

QUEUE_NAME_S = 61
"""A removed queue's name is free after 60 s (AWS limit)."""


class Way(enum.Enum):
    """How the functions of a stage were deployed; the value is the command."""

    CHALICE = "make deploy"
    PACKAGE = "make release"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One stage in one account. Every step may be repeated.

    ``root`` is the checkout to deploy. While a stack is changing, its state is read every
    ``poll_s`` seconds. ``sleep`` waits for seconds. ``run_chalice`` runs a command of Chalice for a
    region and a checkout. ``package`` writes a stage's package to a folder.
    """

    account: Account
    stage: str
    say: Say
    root: Path = ROOT
    poll_s: float = 2.0
    sleep: Callable[[float], None] = time.sleep
    run_chalice: Callable[[list[str], str, Path], None] = run_chalice
    package: Callable[..., None] = package

    def __post_init__(self) -> None:
        require_stage(self.stage, self.root)

    @property
    def names(self) -> Names:
        """The names of this stage's resources."""
        return Names(self.stage)

    @property
    def application(self) -> str:
        """The name of the stack with a packaged stage's functions and API."""
        return f"{self.names.stack}-app"

    @property
    def bucket(self) -> str:
        """The bucket of the packages. A bucket's name must be unique over all AWS accounts."""
        return f"{self.names.stack}-packages-{self.account.id}-{self.account.region}"

    @property
    def is_open(self) -> bool:
        """Whether the stage accepts requests without a key."""
        return is_open(self.stage, self.root)

    @property
    def ownership(self) -> Ownership:
        """Whose the resources under the stage's names are."""
        return Ownership(self.account, self.names, self._stacks, self.bucket)

    @property
    def secrets(self) -> SigningParameter:
        """The parameter with this stage's signing secrets."""
        return SigningParameter(self.account.client("ssm"), self.names.signing_secrets, self.say)

    def make_resources(self, alarm_topic: str | None = None) -> None:
        """Make the resources stack, or bring it up to date.

        ``alarm_topic`` is the ARN of an SNS topic; without it, the stack keeps the one it has.
        A table that an earlier stack has left is adopted, and its timers get new wake-ups. Raises
        ``DeployError``, also if something under the stage's names is not the stage's.
        """
        self.ownership.check()
        self._make_resources(alarm_topic)

    def rearm(self) -> None:
        """Register the wake-ups of all armed timers anew. Harmless where they exist.

        For a table whose queue or schedules were removed. Otherwise its timers would be late, by
        the time until the sweeper takes their wake-ups for lost. Raises ``DeployError``.
        """
        self.ownership.check()
        self._rearm()

    def deploy(self) -> str:
        """Deploy with ``chalice deploy``; return the API's URL."""
        self.ownership.check()
        self._refuse_after(Way.PACKAGE)
        self._make_resources()
        self.ownership.claim_roles()
        self._run_chalice("deploy")
        self._allow_put_backs()
        # Chalice prints the URL but returns nothing, so the API is looked up.
        apis = [item for item in self._made_by_chalice() if item["name"] == "rest_api"]
        return self._url(apis[0]["rest_api_id"])

    def release(self, folder: Path, source: str | None = None) -> str:
        """Package into ``folder`` and deploy that with CloudFormation; return the API's URL.

        ``source`` names a released stage of the same account and region: the code is then the very
        package that it runs. Raises ``DeployError`` if the checkout has other sources.
        """
        self.ownership.check()
        self._refuse_after(Way.CHALICE)
        self._make_resources()
        self.package(self.stage, folder, self.root, for_this_machine=bool(self.account.emulator))
        if source is not None:
            self.promote(source, folder / ZIP_FILE)
        return self._deploy_package(folder / TEMPLATE_FILE, folder / ZIP_FILE)

    def promote(self, source: str, code: Path) -> None:
        """Replace the package ``code`` by the one that the stage ``source`` runs.

        Its checksum is printed. Raises ``DeployError`` if the stage was not released, its package
        is gone or was changed, or the sources in ``code`` are others.
        """
        other = replace(self, stage=source)
        other.ownership.check()
        if other.way() is not Way.PACKAGE:
            raise DeployError(f"{source} was not deployed with `{Way.PACKAGE.value}`.")
        key = promotion.code_key(self._stacks.template(other.application))
        promoted = code.with_name(f"promoted-{ZIP_FILE}")
        s3 = self.account.client("s3")
        promotion.download(s3, other.bucket, key, self.account.id, promoted)
        checksum = fingerprint(promoted)
        if key != f"{checksum}.zip":
            raise DeployError(f"The package of {source} was changed: {key} has {checksum}.")
        promotion.require_same_sources(code, promoted)
        promoted.replace(code)
        self.say(f"{self.stage} gets the package of {source}: {checksum}")

    def deploy_package(self, template: Path, code: Path) -> str:
        """Deploy a package with CloudFormation; return the API's URL.

        It needs the resources stack, which has the bucket.
        """
        self.ownership.check()
        self._refuse_after(Way.CHALICE)
        return self._deploy_package(template, code)

    def destroy(self, confirmed: str | None = None) -> None:
        """Remove the stage. The table of production stays, with its timers and signing secrets.

        Production is removed only if ``confirmed`` names account and region, as ``place`` does.
        Raises ``DeployError``, also if something under the stage's names is not the stage's.
        """
        self._require_confirmation(confirmed)
        self.ownership.check()
        way = self.way()
        # The functions first, because they use the resources.
        if way is Way.PACKAGE:
            self._stacks.delete(self.application)
        elif way is Way.CHALICE:
            self._run_chalice("delete")
        # CloudFormation does not delete a bucket that has objects.
        self._empty_bucket()
        found = self._stacks.delete(self.names.stack)
        if not found and way is None:
            self.say(f"{self.stage}: nothing is deployed")
        if self.stage == PRODUCTION:
            # The secrets stay as well: without them a new stage would send the timers unsigned.
            self.say(f"The table {self.names.table}, its timers and signing secrets, if any, stay.")
            return
        # After the functions: without the secrets they would send webhooks unsigned.
        self.secrets.remove()
        self._delete_table()

    @property
    def place(self) -> str:
        """The account and the region, as they confirm a removal."""
        return f"{self.account.id}/{self.account.region}"

    def way(self) -> Way | None:
        """Return the way in which the stage was deployed; None if it is not deployed."""
        if self._stacks.exists(self.application):
            return Way.PACKAGE
        return Way.CHALICE if self._made_by_chalice() else None

    def address(self) -> str | None:
        """Return the URL of the stage's API, None if there is none."""
        if self._stacks.exists(self.application):
            found = [self._stacks.outputs(self.application).get("RestAPIId")]
        else:
            made = self._made_by_chalice()
            found = [item["rest_api_id"] for item in made if item["name"] == "rest_api"]
        return self._url(found[0]) if found and found[0] else None

    def _require_confirmation(self, confirmed: str | None) -> None:
        """Raise ``DeployError`` unless the removal of production is confirmed."""
        if self.stage == PRODUCTION and confirmed != self.place:
            raise DeployError(
                f"This removes {self.stage} of account {self.account.id} in {self.account.region}: "
                "its API, functions, queues and schedules. If you mean that: "
                f"make destroy STAGE={self.stage} CONFIRM={self.place}"
            )

    def _make_resources(self, alarm_topic: str | None = None) -> None:
        """Make the resources stack of a stage whose names were checked."""
        adopts = not self._stacks.exists(self.names.stack) and self._has_table()
        template = resources_template()
        # A table that is left from an earlier stack is imported. For that CloudFormation needs its
        # literal name: it imports nothing that is named by a function like Fn::Sub.
        template["Resources"]["Table"]["Properties"]["TableName"] = self.names.table
        parameters = {"Stage": self.stage}
        if alarm_topic is not None:
            parameters["AlarmTopic"] = alarm_topic
        try:
            self._apply_resources(template, parameters)
        except StackFailed as failure:
            if not any(QUEUE_NAME_TAKEN in reason for reason in failure.reasons):
                raise
            self.say(f"SQS keeps a removed queue's name for {QUEUE_NAME_S} s: waiting that long")
            self.sleep(QUEUE_NAME_S)
            self._apply_resources(template, parameters)
        if adopts:
            self._rearm()

    def _apply_resources(self, template: dict[str, Any], parameters: dict[str, str]) -> None:
        self._stacks.apply(
            self.names.stack, template, parameters, tags=self.ownership.tags, adopt=True
        )

    def _rearm(self) -> None:
        """Register the wake-ups of a stage whose names were checked."""
        if not self._has_table():
            raise DeployError(f"There is no table {self.names.table}: `make infra` makes it.")
        rearm(self.names, self.say)

    def _deploy_package(self, template: Path, code: Path) -> str:
        """Deploy a package to a stage whose names and way were checked."""
        document: dict[str, Any] = json.loads(template.read_text(encoding="utf-8"))
        code_uri = {"Bucket": self.bucket, "Key": self._upload(code)}
        for resource in document["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = code_uri
        self._stacks.apply(
            self.application, document, {"Stage": self.stage}, tags=self.ownership.tags
        )
        return self._url(self._stacks.outputs(self.application)["RestAPIId"])

    def _allow_put_backs(self) -> None:
        """Allow the queue's function to send messages that it receives again.

        It puts back what it cannot deliver. Lambda takes that for a mistake and drops an invocation
        after about 16 rounds, unless it is allowed. Chalice has no setting for it.
        """
        self.account.client("lambda").put_function_recursion_config(
            FunctionName=f"{self.names.stack}{chalice_record.FUNCTIONS['webhook_queue']}",
            RecursiveLoop="Allow",
        )

    def _has_table(self) -> bool:
        dynamodb = self.account.client("dynamodb")
        try:
            dynamodb.describe_table(TableName=self.names.table)
        except dynamodb.exceptions.ResourceNotFoundException:
            return False
        return True

    def _refuse_after(self, other: Way) -> None:
        """Raise ``DeployError`` if the stage was deployed the ``other`` way."""
        if self.way() is other:
            raise DeployError(
                f"{self.stage} was deployed with `{other.value}`, and a stage is deployed in one "
                f"way only: use that, or `make destroy STAGE={self.stage}` first."
            )

    def _url(self, api: str) -> str:
        """Return the URL of the API with this id, without a slash at its end."""
        if self.account.emulator:
            # On an emulator an API has a path, not a host name of its own.
            return f"{self.account.emulator}/restapis/{api}/{self.stage}/_user_request_"
        return f"https://{api}.execute-api.{self.account.region}.{self.account.dns_suffix}/{self.stage}"

    def _upload(self, code: Path) -> str:
        """Put the code into the bucket unless it is there; return its object key."""
        key = f"{fingerprint(code)}.zip"
        s3 = self.account.client("s3")
        try:
            s3.head_object(Bucket=self.bucket, Key=key, ExpectedBucketOwner=self.account.id)
        except ClientError as error:
            # A HEAD has no body, so its error code may be only the status.
            if error.response["Error"]["Code"] not in ("404", "NoSuchBucket", "NoSuchKey"):
                raise
            self.say(f"{self.bucket}: uploading {code.stat().st_size / 1e6:.1f} MB")
            try:
                s3.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=code.read_bytes(),
                    ExpectedBucketOwner=self.account.id,
                )
            except s3.exceptions.NoSuchBucket as missing:
                raise DeployError(
                    f"There is no bucket {self.bucket}: `make infra STAGE={self.stage}` makes it."
                ) from missing
        return key

    def _empty_bucket(self) -> None:
        s3 = self.account.client("s3")
        try:
            while found := s3.list_objects_v2(
                Bucket=self.bucket, MaxKeys=_MAX_OBJECTS, ExpectedBucketOwner=self.account.id
            ).get("Contents"):
                s3.delete_objects(
                    Bucket=self.bucket,
                    ExpectedBucketOwner=self.account.id,
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

    def _made_by_chalice(self) -> list[chalice_record.Resource]:
        return chalice_record.found(self.account, self.names)

    def _run_chalice(self, command: str) -> None:
        """Run a command of Chalice, with a record of the resources that AWS has."""
        path = self.root / ".chalice" / "deployed" / f"{self.stage}.json"
        chalice_record.write(path, self._made_by_chalice())
        self.run_chalice([command, "--stage", self.stage], self.account.region, self.root)


def fingerprint(code: Path) -> str:
    """Return a hash of the files in a zip.

    The same files have the same hash, whenever they were packed: then nothing is uploaded, and
    CloudFormation leaves the functions alone.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(code) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            # With the size, so that the end of one file cannot pass for the start of another.
            digest.update(f"{entry.filename}\n{entry.file_size}\n".encode())
            digest.update(archive.read(entry))
    return digest.hexdigest()
