"""CloudFormation stacks: each is created, changed or removed, with its events as progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError, WaiterError

from infra.errors import DeployError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import (
        CreateChangeSetInputTypeDef,
        ParameterTypeDef,
        StackEventTypeDef,
        StackTypeDef,
    )

MAX_TEMPLATE_BYTES = 51_200
"""The longest template that fits into the request for a change set (AWS limit)."""

MAX_POLLS = 1_800
"""How often a change set is looked at: an hour, every two seconds."""

NOT_YET_CREATED = "REVIEW_IN_PROGRESS"
"""The state of a stack that has only a change set: it must still be created."""

_CREATION_FAILED = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_NOTHING_TO_DO = ("didn't contain changes", "No updates are to be performed")
"""CloudFormation has no code for this, only these texts."""

Say = Callable[[str], None]
"""Show one line of progress."""

QUEUE_NAME_TAKEN = "60 seconds after deleting a queue"
"""The words of SQS for a queue whose name is not free yet. It is after 60 s (AWS limit)."""


class StackFailed(DeployError):
    """A stack ended in another state than it should. ``reasons`` are the lines of its events."""

    def __init__(self, message: str, reasons: Sequence[str]) -> None:
        super().__init__(message)
        self.reasons = reasons


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
        tags: Mapping[str, str],
        adopt: bool = False,
    ) -> bool:
        """Create or change the stack ``name`` as ``template`` says; return whether it changed.

        A parameter that is not given keeps its value. The stack's resources get its ``tags``. With
        ``adopt``, resources of the template that exist already are imported: an earlier stack has
        left them. Raises ``DeployError`` if CloudFormation refuses or fails.
        """
        body = _body(name, template)
        stack = self._changeable(name)
        change_set = f"deploy-{time.time_ns()}"  # unique in the stack
        changes = self._prepare(
            {
                "StackName": name,
                "ChangeSetName": change_set,
                "ChangeSetType": "UPDATE" if stack else "CREATE",
                "TemplateBody": body,
                "Parameters": _parameters(template, parameters, stack),
                # The templates name IAM roles, and that of a package needs SAM's transform.
                "Capabilities": ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
                "ImportExistingResources": adopt,
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        )
        if not changes:
            self.say(f"{name}: nothing to change")
            return False
        self.say(f"{name}: {'changing' if stack else 'creating'}")
        self._run(
            lambda: self.client.execute_change_set(StackName=name, ChangeSetName=change_set),
            name,
            done=_DONE,
        )
        self.say(f"{name}: done")
        return True

    def delete(self, name: str) -> bool:
        """Remove a stack and its resources; return whether there was one.

        Raises ``DeployError`` if CloudFormation refuses or fails.
        """
        stack = self.find(name)
        if stack is None:
            return False
        self.say(f"{name}: removing")
        self._run(
            lambda: self.client.delete_stack(StackName=name),
            name,
            stack_id=stack["StackId"],  # a removed stack is found by its id only
            done={"DELETE_COMPLETE"},
        )
        self.say(f"{name}: removed")
        return True

    def find(self, name: str) -> StackTypeDef | None:
        """Return a stack in any state, None if there is none."""
        try:
            found = self.client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            # CloudFormation has no code of its own for this either: it is a ValidationError.
            if "does not exist" in str(error):
                return None
            raise DeployError(f"CloudFormation: {error}") from error
        return found[0] if found and found[0]["StackStatus"] != "DELETE_COMPLETE" else None

    def resources(self, name: str) -> set[str]:
        """Return the physical ids of a stack's resources."""
        pages = self.client.get_paginator("list_stack_resources").paginate(StackName=name)
        return {
            resource["PhysicalResourceId"]
            for page in pages
            for resource in page["StackResourceSummaries"]
            if "PhysicalResourceId" in resource
        }

    def template(self, name: str) -> dict[str, Any]:
        """Return the template of a stack as it was given, before SAM's transform."""
        body: Any = self.client.get_template(StackName=name, TemplateStage="Original")[
            "TemplateBody"
        ]
        # boto3 parses a template in JSON; some emulators send it as another kind of text.
        parsed: dict[str, Any] = json.loads(body) if isinstance(body, str) else body
        return parsed

    def exists(self, name: str) -> bool:
        """Tell whether there is a stack ``name``, in any state."""
        return self.find(name) is not None

    def outputs(self, name: str) -> dict[str, str]:
        """Return the outputs of a stack, none if it does not exist."""
        stack = self.find(name)
        outputs = stack.get("Outputs", []) if stack else []
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def _changeable(self, name: str) -> StackTypeDef | None:
        """Return the stack if it can be changed, None if it must be created.

        Raises ``DeployError`` while the stack is being changed, or is stuck.
        """
        stack = self.find(name)
        if stack is None or stack["StackStatus"] == NOT_YET_CREATED:
            return None
        status = stack["StackStatus"]
        if status in _CREATION_FAILED:
            # CloudFormation allows nothing but the removal of such a stack.
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

    def _prepare(self, request: CreateChangeSetInputTypeDef) -> bool:
        """Create a change set. If it would change nothing, leave none and return False."""
        try:
            self.client.create_change_set(**request)
            return self._has_changes(request["StackName"], request["ChangeSetName"])
        except ClientError as error:
            # AWS says "nothing to change" in the change set, some emulators in a response.
            if _is_nothing_to_do(str(error)):
                return False
            raise DeployError(f"CloudFormation: {error}") from error

    def _has_changes(self, name: str, change_set: str) -> bool:
        """Wait for a change set. If it would change nothing, delete it and return False."""
        waiter = self.client.get_waiter("change_set_create_complete")
        try:
            waiter.wait(
                StackName=name,
                ChangeSetName=change_set,
                # The stubs want whole seconds; botocore takes any number.
                WaiterConfig={"Delay": cast("int", self.poll_s), "MaxAttempts": MAX_POLLS},
            )
        except WaiterError as error:
            reason = error.last_response.get("StatusReason", str(error))
        else:
            return True
        refused = not _is_nothing_to_do(reason)
        if refused:
            self._show_validation(name, change_set)
        self.client.delete_change_set(StackName=name, ChangeSetName=change_set)
        if not refused:
            return False
        raise DeployError(f"CloudFormation refuses the template of {name}: {reason}")

    def _show_validation(self, name: str, change_set: str) -> None:
        """Show which resource failed CloudFormation's validation. They go with the change set."""
        try:
            events = self.client.describe_events(
                StackName=name, ChangeSetName=change_set, Filters={"FailedEvents": True}
            )["OperationEvents"]
        except ClientError as error:  # no permission, or an emulator: events only inform
            self.say(f"  no events of the change set: {error.response['Error']['Code']}")
            return
        for event in events:
            parts = (
                event.get("LogicalResourceId"),
                event.get("ValidationStatusReason") or event.get("ResourceStatusReason"),
                event.get("ValidationPath"),
            )
            self.say("  " + " ".join(part for part in parts if part))

    def _run(
        self,
        call: Callable[[], object],
        name: str,
        *,
        done: Container[str],
        stack_id: str | None = None,
    ) -> None:
        """Make a call that changes a stack, and print the stack's events until it has changed.

        Raises ``DeployError`` if CloudFormation refuses the call, or the final state is not in
        ``done``.
        """
        seen = {event_id for event_id, _ in self._events(name)}
        try:
            call()
        except ClientError as error:
            raise DeployError(f"CloudFormation: {error}") from error
        final, lines = self._follow(stack_id or name, seen)
        if final not in done:
            raise StackFailed(f"The stack {name} ended as {final}: see the lines above.", lines)

    def _follow(self, name: str, seen: set[str]) -> tuple[str, list[str]]:
        """Print a stack's events until it no longer changes; return its state and those lines."""
        lines: list[str] = []
        while True:
            # Its state is read before its events, so that the last ones are shown.
            stack = self.find(name)
            status: str = stack["StackStatus"] if stack else "DELETE_COMPLETE"
            lines += self._show_events(name, seen)
            if not status.endswith("_IN_PROGRESS"):
                return status, lines
            time.sleep(self.poll_s)

    def _show_events(self, name: str, seen: set[str]) -> list[str]:
        new = [event for event in reversed(self._events(name)) if event[0] not in seen]
        for event_id, line in new:
            seen.add(event_id)
            self.say(f"  {line}")
        return [line for _, line in new]

    def _events(self, name: str) -> list[tuple[str, str]]:
        """Return the latest events of a stack, newest first: the id of each and a line about it."""
        try:
            events = self.client.describe_stack_events(StackName=name)["StackEvents"]
        except ClientError:  # no stack yet, or no permission: events only inform
            return []
        return [(event["EventId"], _line(event)) for event in events]


def _body(name: str, template: Mapping[str, Any]) -> str:
    """Return a template as text. Raises ``DeployError`` if it is too long."""
    body = json.dumps(template, separators=(",", ":"))
    if len(body.encode()) > MAX_TEMPLATE_BYTES:
        raise DeployError(f"The template of {name} is over {MAX_TEMPLATE_BYTES} bytes.")
    return body


def _line(event: StackEventTypeDef) -> str:
    parts = (
        event.get("ResourceStatus"),
        event.get("LogicalResourceId"),
        event.get("ResourceStatusReason"),
    )
    return " ".join(part for part in parts if part)


def _is_nothing_to_do(reason: str) -> bool:
    return any(words in reason for words in _NOTHING_TO_DO)


def _parameters(
    template: Mapping[str, Any], given: Mapping[str, str], stack: StackTypeDef | None
) -> list[ParameterTypeDef]:
    """Return the parameters of a change: the given ones, and the present values of the others."""
    values: list[ParameterTypeDef] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()
    ]
    for parameter in stack.get("Parameters", []) if stack else []:
        key = parameter["ParameterKey"]
        if key in template.get("Parameters", {}) and key not in given:
            values.append({"ParameterKey": key, "UsePreviousValue": True})
    return values
