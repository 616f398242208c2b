"""`dudi plan`: memory, FLOPs and hours of a run, from its models' configs alone."""

from dudi.plan.estimate import Plan, estimate
from dudi.plan.models import Counted, count_lora_parameters, count_rows, plan_run
from dudi.plan.text import advise_out_of_memory, render

__all__ = [
    "Counted",
    "Plan",
    "advise_out_of_memory",
    "count_lora_parameters",
    "count_rows",
    "estimate",
    "plan_run",
    "render",
]
