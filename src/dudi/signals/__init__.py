"""The signals of Table 1: what each wants rolled out and scored, and its loss.

Eq. 8 is the weighted sum of what these classes return, each divided by its own count:

    L  =  alpha L_sequence  +  (1 - lambda) L_off_policy  +  lambda L_on_policy
"""

from __future__ import annotations

from dudi.arguments import DudiConfig
from dudi.heads import Distance
from dudi.signals.base import Heads, Kind, Rows, Signal, sum_by_sequence
from dudi.signals.sequence import SequenceSignal
from dudi.signals.token import OffPolicySignal, OnPolicySignal

__all__ = [
    "Distance",
    "Heads",
    "Kind",
    "OffPolicySignal",
    "OnPolicySignal",
    "Rows",
    "SequenceSignal",
    "Signal",
    "build_signals",
    "sum_by_sequence",
]


def build_signals(args: DudiConfig) -> dict[str, Signal]:
    """The signals that a config runs; one of weight 0 is left out, and so never rolled out or scored."""
    distance = Distance(args.divergence, args.beta, args.kd_temperature)
    everything: dict[str, Signal] = {
        "sequence": SequenceSignal(args.spin_beta),
        "off_policy": OffPolicySignal(args.off_policy_loss, distance),
        "on_policy": OnPolicySignal(distance, args.on_policy_kind),
    }
    return {name: everything[name] for name in args.signals}
