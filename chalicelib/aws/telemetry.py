"""Structured logs and metrics on AWS, with Powertools for AWS Lambda.

Metrics are written to the log in embedded metric format (EMF), so a metric costs no call.
Powertools is imported when it is first used, because the authorizer never uses it and starts faster
without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from chalicelib.aws.names import APP
from chalicelib.service.ports import Metric

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger, Metrics

NAMESPACE = "WebhookTimers"

_IN_MILLISECONDS = {Metric.LATENESS_MS, Metric.OVERDUE_MS}


class LambdaTelemetry:
    """The log and the metrics of one Lambda."""

    def __init__(self, stage: str) -> None:
        self._service = f"{APP}-{stage}"

    def meter(self, metric: Metric, value: float) -> None:
        """Add one value to a metric. It is written when the observed invocation ends."""
        from aws_lambda_powertools.metrics import MetricUnit

        unit = MetricUnit.Milliseconds if metric in _IN_MILLISECONDS else MetricUnit.Count
        self._metrics.add_metric(name=metric.value, unit=unit, value=value)

    @contextmanager
    def observe(self, context: Any) -> Iterator[None]:
        """Add the request id of ``context`` to every log line, and write the metrics at the end."""
        self._logger.append_keys(request_id=context.aws_request_id)
        try:
            yield
        finally:
            # Powertools warns when it flushes no metrics.
            if self._metrics.metric_set:
                self._metrics.flush_metrics()

    @cached_property
    def _metrics(self) -> Metrics:
        from aws_lambda_powertools import Metrics

        return Metrics(namespace=NAMESPACE, service=self._service)

    @cached_property
    def _logger(self) -> Logger:
        from aws_lambda_powertools import Logger

        logger = Logger(service=self._service, level="INFO", logger_formatter=None)
        # Our modules use ``logging`` only. Powertools' handler writes their lines as JSON too.
        package = logging.getLogger("chalicelib")
        package.handlers = logger.handlers
        package.setLevel(logging.INFO)
        package.propagate = False
        return logger
