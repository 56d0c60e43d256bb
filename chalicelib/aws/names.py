"""The names of all resources on AWS.

They are made of app and stage, so that policies and settings can be written in advance and no
output of a deployment has to be copied.
"""

from __future__ import annotations

from dataclasses import dataclass

APP = "timers"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one stage's resources. Policies and templates contain the same names."""

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
        """The SQS queue of messages that were received too often, and of failed schedules."""
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
        """The Lambda that EventBridge Scheduler invokes. ``chalice deploy`` gives it this name."""
        return f"{self.stack}-webhook"
