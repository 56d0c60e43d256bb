"""The names of all resources on AWS, made of app and stage: no output is copied anywhere."""

from __future__ import annotations

from dataclasses import dataclass

APP = "timers"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one stage's resources. Policies and templates spell out the same ones."""

    stage: str

    @property
    def stack(self) -> str:
        """The CloudFormation stack of the resources, and the prefix of all names."""
        return f"{APP}-{self.stage}"

    @property
    def table(self) -> str:
        """The DynamoDB table."""
        return self.stack

    @property
    def queue(self) -> str:
        """The SQS queue of near wake-ups."""
        return f"{self.stack}-webhooks"

    @property
    def dead_letters(self) -> str:
        """The SQS queue of wake-ups that failed too often."""
        return f"{self.stack}-dead"

    @property
    def schedule_group(self) -> str:
        """The EventBridge Scheduler group of far wake-ups."""
        return self.stack

    @property
    def signing_secrets(self) -> str:
        """The SSM parameter with the secrets that sign webhooks."""
        return f"/{self.stack}/signing-secrets"

    @property
    def scheduler_role(self) -> str:
        """The role with which EventBridge Scheduler invokes the webhook function."""
        return f"{self.stack}-scheduler"

    @property
    def webhook_function(self) -> str:
        """The Lambda that EventBridge Scheduler invokes, named as ``chalice deploy`` names it."""
        return f"{self.stack}-webhook"
