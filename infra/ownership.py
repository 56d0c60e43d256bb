"""The ownership check: a command changes or removes only resources that belong to the stage.

Other resources in the account may have the same names. A resource belongs to the stage if our tag
says so, or if the stage's stack lists it. Roles and buckets are visible in every region, so the tag
also names the stage's region.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from botocore.exceptions import ClientError

from chalicelib.aws.dynamodb.rows import DUE_INDEX, FAILED_INDEX
from chalicelib.aws.names import APP, Names
from infra.account import Account
from infra.chalice_record import FUNCTIONS, unless_missing
from infra.errors import DeployError
from infra.stacks import NOT_YET_CREATED, Stacks

TAG = "webhook-timers"
"""The tag of everything that we make. Its value is the stage and the region."""

_DESCRIPTION = "Webhook Timers:"
"""The start of the template's description. It marks a stack that has no tags yet."""

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
"""Who may take a function's role: Lambda."""

_INDEXES = {DUE_INDEX, FAILED_INDEX}

Tags = Iterable[tuple[str, str]]


def tag_value(names: Names, region: str) -> str:
    """Return the value of our tag for one stage in one region."""
    return f"{names.stage}/{region}"


class Ownership:
    """Tells whose the resources under the names of one stage are, in one account and region."""

    def __init__(self, account: Account, names: Names, stacks: Stacks, bucket: str) -> None:
        """``bucket`` is the name of the stage's bucket of packages."""
        self._account = account
        self._names = names
        self._stacks = stacks
        self._bucket = bucket
        self._value = tag_value(names, account.region)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of what is made for the stage."""
        return {TAG: self._value}

    def check(self) -> None:
        """Return if everything under the stage's names is the stage's, or not there.

        Raises ``DeployError``, which names the first resource that is not.
        """
        mine = self._check_stacks()
        used_roles = self._check_functions()
        roles = {f"{self._names.stack}-{name}" for name in FUNCTIONS}
        for role in sorted(roles | {self._names.scheduler_role}):
            self._check_role(role, mine | used_roles)
        self._check_queue(self._names.queue, mine)
        self._check_queue(self._names.dead_letters, mine)
        self._check_table(mine)
        self._check_bucket(mine)

    def claim_roles(self) -> None:
        """Make the functions' roles that are missing, and tag those that have no tag yet.

        Chalice makes roles without tags. One that it finds, it keeps and gives its policy.
        """
        iam = self._account.client("iam")
        tags = [{"Key": TAG, "Value": self._value}]
        for name in FUNCTIONS:
            role = f"{self._names.stack}-{name}"
            if unless_missing(partial(iam.get_role, RoleName=role)):
                iam.tag_role(RoleName=role, Tags=tags)
            else:
                iam.create_role(
                    RoleName=role, AssumeRolePolicyDocument=json.dumps(_TRUST), Tags=tags
                )

    def _check_stacks(self) -> set[str]:
        """Return the ids of the resources in the stage's stacks."""
        mine: set[str] = set()
        for name in (self._names.stack, f"{self._names.stack}-app"):
            stack = self._stacks.find(name)
            if stack is None or stack["StackStatus"] == NOT_YET_CREATED:
                continue
            tags = [(tag["Key"], tag["Value"]) for tag in stack.get("Tags", [])]
            parameters = {
                item["ParameterKey"]: item.get("ParameterValue")
                for item in stack.get("Parameters", [])
            }
            # Stacks of earlier versions have no tags, but a description or an output of ours.
            marked = stack.get("Description", "").startswith(_DESCRIPTION) or any(
                output.get("OutputKey") == "RestAPIId" for output in stack.get("Outputs", [])
            )
            self._require(
                "stack",
                name,
                tags,
                otherwise=marked and parameters.get("Stage") == self._names.stage,
            )
            mine |= self._stacks.resources(name)
        return mine

    def _check_functions(self) -> set[str]:
        """Return the names of the roles that the stage's functions use."""
        functions = self._account.client("lambda")
        roles = set()
        for suffix in FUNCTIONS.values():
            name = self._names.stack + suffix
            found = unless_missing(partial(functions.get_function, FunctionName=name))
            if not found:
                continue
            tags = found.get("Tags", {})
            # Chalice tags its functions, however they are deployed: version=…:stage=…:app=….
            made_by_chalice = tags.get("aws-chalice", "").endswith(
                f":stage={self._names.stage}:app={APP}"
            )
            self._require("function", name, tags.items(), otherwise=made_by_chalice)
            roles.add(found["Configuration"]["Role"].rpartition("/")[2])
        return roles

    def _check_role(self, name: str, mine: set[str]) -> None:
        iam = self._account.client("iam")
        if not unless_missing(partial(iam.get_role, RoleName=name)):
            return
        tags = [(tag["Key"], tag["Value"]) for tag in iam.list_role_tags(RoleName=name)["Tags"]]
        # Roles are the same in every region. One that this region's functions use is ours.
        self._require("role", name, tags, otherwise=name in mine)

    def _check_queue(self, name: str, mine: set[str]) -> None:
        sqs = self._account.client("sqs")
        try:
            url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        except sqs.exceptions.QueueDoesNotExist:
            return
        tags = sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
        # A stack knows a queue by its URL.
        self._require("queue", name, tags.items(), otherwise=bool({name, url} & mine))

    def _check_table(self, mine: set[str]) -> None:
        """Check the table, which may be left from an earlier stack."""
        dynamodb = self._account.client("dynamodb")
        name = self._names.table
        found = unless_missing(partial(dynamodb.describe_table, TableName=name))
        if not found:
            return
        arn = found["Table"]["TableArn"]
        tags = [
            (tag["Key"], tag["Value"])
            for tag in dynamodb.list_tags_of_resource(ResourceArn=arn).get("Tags", [])
        ]
        # A table that an earlier version has left has no tag. It is known by its indexes.
        indexes = {each["IndexName"] for each in found["Table"].get("GlobalSecondaryIndexes", [])}
        self._require("table", name, tags, otherwise=name in mine or indexes >= _INDEXES)

    def _check_bucket(self, mine: set[str]) -> None:
        s3 = self._account.client("s3")
        try:
            s3.head_bucket(Bucket=self._bucket, ExpectedBucketOwner=self._account.id)
        except ClientError as error:
            # A HEAD has no body, so its error code may be only the status.
            if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
                return
            if error.response["Error"]["Code"] not in ("403", "AccessDenied"):
                raise
            raise self._foreign("bucket", self._bucket, "it is another account's") from error
        try:
            found = s3.get_bucket_tagging(Bucket=self._bucket)["TagSet"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchTagSet":
                raise
            found = []
        tags = [(tag["Key"], tag["Value"]) for tag in found]
        self._require("bucket", self._bucket, tags, otherwise=self._bucket in mine)

    def _require(self, kind: str, name: str, tags: Tags, *, otherwise: bool) -> None:
        """Raise ``DeployError`` unless a resource is the stage's.

        Our tag decides. Without one, ``otherwise`` does.
        """
        value = dict(tags).get(TAG)
        if value is None and not otherwise:
            raise self._foreign(kind, name, "nothing says that it belongs to this stage")
        if value is not None and value != self._value:
            stage, _, region = value.partition("/")
            raise self._foreign(kind, name, f"it belongs to stage {stage} in {region}")

    def _foreign(self, kind: str, name: str, reason: str) -> DeployError:
        return DeployError(
            f"The {kind} {name} in account {self._account.id} is not this stage's "
            f"({self._names.stage} in {self._account.region}): {reason}. Nothing was changed."
        )
