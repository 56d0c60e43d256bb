"""The AWS account and region that a command works in, and clients for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from chalicelib.settings import is_aws
from infra.errors import DeployError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

# Deployments are long and may be repeated by hand: fail soon when AWS cannot be reached.
_CONFIG = Config(connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 4})

# The codes of AWS for credentials that are expired, unknown, or have a wrong secret.
_WRONG_CREDENTIALS_CODES = {
    "ExpiredToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}


@dataclass(frozen=True, slots=True)
class Account:
    """An account and a region, with a session of boto3 that has credentials for them."""

    session: boto3.Session
    id: str
    region: str

    @classmethod
    def current(cls) -> Account:
        """Return the account of the present credentials, as AWS tells it.

        Raises ``DeployError`` without valid credentials, or without a region.
        """
        try:
            session = boto3.Session()
        except ProfileNotFound as error:
            raise DeployError(
                f"{error}: AWS_PROFILE must name a profile of ~/.aws/config."
            ) from error
        if session.region_name is None:
            raise DeployError(
                "No AWS region: set AWS_DEFAULT_REGION (for example eu-central-1), or a region "
                "in ~/.aws/config."
            )
        sts: STSClient = session.client("sts", config=_CONFIG)
        try:
            account_id = sts.get_caller_identity()["Account"]
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
            raise DeployError(
                "No AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY ({error})."
            ) from error
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _WRONG_CREDENTIALS_CODES:
                raise DeployError(f"AWS does not accept these credentials ({code}).") from error
            raise DeployError(f"AWS does not tell whose credentials these are: {error}") from error
        except BotoCoreError as error:
            raise DeployError(f"AWS cannot be reached in {session.region_name}: {error}") from error
        return cls(session=session, id=account_id, region=session.region_name)

    @overload
    def client(self, name: Literal["cloudformation"]) -> CloudFormationClient: ...
    @overload
    def client(self, name: Literal["dynamodb"]) -> DynamoDBClient: ...
    @overload
    def client(self, name: Literal["lambda"]) -> LambdaClient: ...
    @overload
    def client(self, name: Literal["s3"]) -> S3Client: ...
    @overload
    def client(self, name: Literal["ssm"]) -> SSMClient: ...
    @overload
    def client(self, name: Literal["events", "iam", "sqs"]) -> Any: ...
    def client(self, name: Any) -> Any:
        """Return a client of one service."""
        return self.session.client(name, config=_CONFIG)

    @property
    def dns_suffix(self) -> str:
        """The end of the names of AWS's endpoints in this region, which differs by partition."""
        data: Any = self.session._session.get_component("endpoint_resolver")  # noqa: SLF001
        suffix: str = data.get_partition_dns_suffix(
            data.get_partition_for_region(self.region), None
        )
        return suffix

    @property
    def emulator(self) -> str | None:
        """Return the URL of the emulator that ``AWS_ENDPOINT_URL`` names; None on AWS itself."""
        # From a client, because boto3 reads the variable and the configuration file.
        endpoint = self.client("cloudformation").meta.endpoint_url.rstrip("/")
        return None if is_aws(endpoint) else endpoint
