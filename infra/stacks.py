"""CloudFormation stacks: each is created or changed until it is as its template says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.errors import DeployError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef, StackTypeDef

MAX_TEMPLATE_BYTES = 51_200
"""The longest template that fits into the request for a change set (AWS limit)."""

_NOT_YET_CREATED = {"REVIEW_IN_PROGRESS"}
_CREATION_FAILED = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")

Say = Callable[[str], None]
"""Show one line of progress."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks of one account and region."""

    client: CloudFormationClient
    say: Say
    poll_s: float = 2.0

    def apply(
        self,
        name: str,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        *,
        adopt: bool = False,
    ) -> bool:
        """Create or change the stack ``name`` as ``template`` says; return whether it changed.

        A parameter that is not given keeps its value. With ``adopt``, resources that exist under
        the template's names are imported: those that outlived their stack. Raises ``DeployError``
        if CloudFormation refuses or fails.
        """
        body = json.dumps(template, separators=(",", ":"))
        if len(body.encode()) > MAX_TEMPLATE_BYTES:
            raise DeployError(f"The template of {name} is over {MAX_TEMPLATE_BYTES} bytes.")
        stack = self._ready(name)
        change_set = f"deploy-{time.time_ns()}"
        try:
            self.client.create_change_set(
                StackName=name,
                ChangeSetName=change_set,
                ChangeSetType="UPDATE" if stack else "CREATE",
                TemplateBody=body,
                Parameters=_values(template, parameters, stack),
                Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
                ImportExistingResources=adopt,
            )
            prepared = self._prepared(name, change_set)
        except ClientError as error:
            # AWS says "nothing to change" in the change set, some emulators in this response.
            if not _nothing_to_do(str(error)):
                raise DeployError(f"CloudFormation: {error}") from error
            prepared = False
        if not prepared:
            self.say(f"{name}: nothing to change")
            return False
        self.say(f"{name}: {'changing' if stack else 'creating'}")
        seen = self._events_so_far(name)
        self._calling(
            lambda: self.client.execute_change_set(StackName=name, ChangeSetName=change_set)
        )
        final = self._follow(name, seen)
        if final not in _DONE:
            raise DeployError(f"The stack {name} ended as {final}: see the lines above.")
        self.say(f"{name}: done")
        return True

    def delete(self, name: str) -> bool:
        """Remove a stack and its resources; return whether there was one."""
        stack = self._find(name)
        if stack is None:
            return False
        self.say(f"{name}: removing")
        stack_id = stack["StackId"]
        seen = self._events_so_far(name)
        self._calling(lambda: self.client.delete_stack(StackName=name))
        # A removed stack is only found by its id.
        final = self._follow(stack_id, seen)
        if final != "DELETE_COMPLETE":
            raise DeployError(f"The stack {name} ended as {final}: see the lines above.")
        self.say(f"{name}: removed")
        return True

    def exists(self, name: str) -> bool:
        """Tell whether there is a stack ``name``, in any state."""
        return self._find(name) is not None

    def outputs(self, name: str) -> dict[str, str]:
        """Return the outputs of a stack, none if it does not exist."""
        stack = self._find(name)
        outputs = stack.get("Outputs", []) if stack else []
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def _ready(self, name: str) -> StackTypeDef | None:
        """Return the stack if it can be changed, None if it must be created.

        A stack whose creation failed is removed. Raises ``DeployError`` while the stack is being
        changed, or is stuck.
        """
        stack = self._find(name)
        if stack is None or stack["StackStatus"] in _NOT_YET_CREATED:
            return None
        status = stack["StackStatus"]
        if status in _CREATION_FAILED:
            self.say(f"{name}: {status}, so it starts afresh")
            self.delete(name)
            return None
        if status.endswith("_IN_PROGRESS"):
            raise DeployError(f"The stack {name} is being changed ({status}): try again later.")
        if status == "UPDATE_ROLLBACK_FAILED":
            raise DeployError(
                f"The stack {name} is stuck ({status}): continue its rollback in the "
                "CloudFormation console, then try again."
            )
        return stack

    def _prepared(self, name: str, change_set: str) -> bool:
        """Wait for a change set. If it would change nothing, delete it and return False."""
        while True:
            found = self.client.describe_change_set(StackName=name, ChangeSetName=change_set)
            if found["Status"] == "CREATE_COMPLETE":
                return True
            if found["Status"] == "FAILED":
                reason = found.get("StatusReason", "no reason given")
                self.client.delete_change_set(StackName=name, ChangeSetName=change_set)
                if _nothing_to_do(reason):
                    return False
                raise DeployError(f"CloudFormation refuses the template of {name}: {reason}")
            time.sleep(self.poll_s)

    def _follow(self, name: str, seen: set[str]) -> str:
        """Print a stack's events until it is no longer changing; return its final state."""
        while True:
            stack = self._find(name)
            status: str = stack["StackStatus"] if stack else "DELETE_COMPLETE"
            self._show_events(name, seen)
            if not status.endswith("_IN_PROGRESS"):
                return status
            time.sleep(self.poll_s)

    def _show_events(self, name: str, seen: set[str]) -> None:
        for event_id, line in reversed(self._events(name)):
            if event_id not in seen:
                seen.add(event_id)
                self.say(f"  {line}")

    def _events_so_far(self, name: str) -> set[str]:
        return {event_id for event_id, _ in self._events(name)}

    def _events(self, name: str) -> list[tuple[str, str]]:
        """Return the latest events of a stack, newest first: each one's id and a line about it."""
        try:
            found = self.client.describe_stack_events(StackName=name)["StackEvents"]
        except ClientError:
            return []
        return [
            (
                event["EventId"],
                " ".join(
                    filter(
                        None,
                        (
                            event.get("ResourceStatus"),
                            event.get("LogicalResourceId"),
                            event.get("ResourceStatusReason"),
                        ),
                    )
                ),
            )
            for event in found
        ]

    def _find(self, name: str) -> StackTypeDef | None:
        try:
            found = self.client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise DeployError(f"CloudFormation: {error}") from error
        return found[0] if found and found[0]["StackStatus"] != "DELETE_COMPLETE" else None

    @staticmethod
    def _calling(call: Callable[[], object]) -> None:
        try:
            call()
        except ClientError as error:
            raise DeployError(f"CloudFormation: {error}") from error


def _nothing_to_do(reason: str) -> bool:
    return any(words in reason for words in _NOTHING_TO_DO)


def _values(
    template: Mapping[str, Any], given: Mapping[str, str], stack: StackTypeDef | None
) -> list[ParameterTypeDef]:
    """Return the parameters of a change: those given, and the present values of the others."""
    values: list[ParameterTypeDef] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()
    ]
    for parameter in stack.get("Parameters", []) if stack else []:
        key = parameter["ParameterKey"]
        if key in template.get("Parameters", {}) and key not in given:
            values.append({"ParameterKey": key, "UsePreviousValue": True})
    return values
