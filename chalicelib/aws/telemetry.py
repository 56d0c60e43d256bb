"""Structured logs and metrics on AWS: Powertools, the library of this field.

Metrics leave as embedded metric format (EMF) lines in the log, so that counting costs no call.
"""

from __future__ import annotations

import logging

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from chalicelib.aws.names import APP
from chalicelib.service.ports import Metric

NAMESPACE = "WebhookTimers"

_IN_MILLISECONDS = {Metric.LATENESS_MS, Metric.OVERDUE_MS}


class Telemetry:
    """The log and the metrics of one Lambda."""

    def __init__(self, stage: str) -> None:
        self._metrics = Metrics(namespace=NAMESPACE, service=f"{APP}-{stage}")
        self._logger = Logger(service=f"{APP}-{stage}", level="INFO", logger_formatter=None)
        _log_as_json(self._logger)

    def meter(self, metric: Metric, value: float) -> None:
        """Note one value of a metric; it leaves with ``flush``."""
        unit = MetricUnit.Milliseconds if metric in _IN_MILLISECONDS else MetricUnit.Count
        self._metrics.add_metric(name=metric.value, unit=unit, value=value)

    def of_request(self, request_id: str) -> None:
        """Name the request in every line logged from now on."""
        self._logger.append_keys(request_id=request_id)

    def flush(self) -> None:
        """Write the metrics noted since the last time, if any: of none Powertools would warn."""
        if self._metrics.metric_set:
            self._metrics.flush_metrics()


def _log_as_json(logger: Logger) -> None:
    """Send the lines of our own modules, which know only ``logging``, the same way."""
    package = logging.getLogger("chalicelib")
    package.handlers = logger.handlers
    package.setLevel(logging.INFO)
    package.propagate = False
