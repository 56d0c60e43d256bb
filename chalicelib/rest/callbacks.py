"""The calls that the service makes to receivers, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "webhook_id": {
        "name": "webhook-id",
        "in": "header",
        "required": True,
        "description": "The same on every attempt of a timer, its replays included; unique over "
        "timers, tenants and stores.",
        "schema": {"type": "string"},
        "example": "8c1f0f4e2a9d4b53.default.1",
    },
    "webhook_timestamp": {
        "name": "webhook-timestamp",
        "in": "header",
        "required": True,
        "description": "When this attempt began, in seconds since 1970.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1795534200",
    },
    "webhook_signature": {
        "name": "webhook-signature",
        "in": "header",
        "description": "One `v1` signature for each signing secret that is set (Standard Webhooks "
        "1.0).",
        "schema": {
            "type": "string",
            "pattern": "^v1,[A-Za-z0-9+/=]+( v1,[A-Za-z0-9+/=]+)*$",
        },
    },
}
"""The headers of every call, by the names that they have among the document's components."""

_PARAMETERS = [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS]

CALLBACKS: dict[str, Any] = {
    "webhook": {
        "{$request.body#/url}/{$response.body#/id}": {
            "post": {
                "summary": "The webhook",
                "description": "Sent when the timer is due, never early, with an empty body. The "
                "id is appended to the path of the URL: a query stays behind the path, a fragment "
                "is not sent. After a failure the next attempt follows by the retry schedule.",
                "parameters": _PARAMETERS,
                "responses": {
                    "2XX": {"description": "The webhook is delivered."},
                    "410": {
                        "description": "The receiver wants no more calls: the timer is `failed` at "
                        "once."
                    },
                    "default": {
                        "description": "A failure, as are a redirect, no connection, and no "
                        "response in time.",
                        "headers": {
                            "Retry-After": {
                                "description": "Delays the next attempt, by a day at most.",
                                "schema": {"type": "string"},
                            }
                        },
                    },
                },
            }
        }
    },
    "on_failure": {
        "{$request.body#/on_failure_url}/{$response.body#/id}": {
            "post": {
                "summary": "The notice of a final failure",
                "description": "Sent once, before the failure is recorded, and not retried, "
                "whether or not it succeeds. Its `webhook-id` ends in `.failed.<version>`.",
                "parameters": _PARAMETERS,
                "responses": {
                    "default": {
                        "description": "Recorded among the timer's attempts; it changes nothing "
                        "else."
                    }
                },
            }
        }
    },
}
