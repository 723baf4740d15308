"""Eyes to see what the attention of a network does."""

from zoo.explain.gate_report import Answers, GateFacts, GateReport, gate_report
from zoo.explain.maps import GateMaps, attention_maps
from zoo.explain.watching import ExplainError, attention_modules

__all__ = [
    "Answers",
    "ExplainError",
    "GateFacts",
    "GateMaps",
    "GateReport",
    "attention_maps",
    "attention_modules",
    "gate_report",
]
