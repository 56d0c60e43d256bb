"""A meter whose values a test can read."""

from __future__ import annotations

from dataclasses import dataclass, field

from chalicelib.service.ports import Metric


@dataclass
class RecordingMeter:
    """Remembers every value of every metric."""

    values: list[tuple[Metric, float]] = field(default_factory=list)

    def __call__(self, metric: Metric, value: float) -> None:
        self.values.append((metric, value))

    def of(self, metric: Metric) -> list[float]:
        return [value for name, value in self.values if name is metric]
