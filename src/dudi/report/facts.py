"""What a run stood on: its command, models, data, versions and machine."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dudi.distill.teacher_keys import keys_together
from dudi.evaluation.records import part_of
from dudi.report.run_folder import RunFolder, number
from dudi.report.wording import gibibytes, said

Pairs = list[tuple[str, str]]


def command_of(run: RunFolder) -> str:
    """The command as it was recorded; an empty text where nobody did."""
    recorded = run.environment.get("command")
    if isinstance(recorded, list):
        return shlex.join(map(str, recorded))
    return " ".join(recorded.split()) if isinstance(recorded, str) else ""


def model_name(section: Any) -> str:
    """A model's name out of its section, with the layers that were kept."""
    if not isinstance(section, Mapping):
        return said(section)
    name, kept = section.get("model"), section.get("keep_layers")
    if not name or kept is None:
        return said(name)
    return f"{name} ({kept if isinstance(kept, int) else len(kept)} layers kept)"


def teachers_of(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """The run's second models by what they are called: `teacher`, or of several `teacher my, ta`; each once."""
    several = run.value("teachers")
    if not isinstance(several, Mapping) or not several:
        one = run.value("teacher")
        return {"teacher": one} if isinstance(one, Mapping) and one.get("model") else {}
    sections = {str(key): section for key, section in several.items() if isinstance(section, Mapping)}
    return {f"teacher {', '.join(own)}": sections[own[0]] for own in keys_together(sections)}


def teacher_names(run: RunFolder) -> str:
    """The second model's name; of several, what each is for."""
    found = teachers_of(run)
    if len(found) == 1:
        return model_name(next(iter(found.values())))
    named = [f"{role.removeprefix('teacher ')}: {model_name(section)}" for role, section in found.items()]
    return "; ".join(named) or said(None)


def versions(run: RunFolder) -> Pairs:
    """Installed packages with their versions."""
    return [(str(name), str(version)) for name, version in part_of(run.environment, "packages").items() if version]


def machine(run: RunFolder) -> Pairs:
    """The machine, one line each."""
    environment = run.environment
    lines = [(name, said(environment.get(name))) for name in ("python", "platform", "commit", "cuda", "cores")]
    precision, device = environment.get("precision"), environment.get("device")
    if isinstance(precision, Mapping):
        lines.append(("precision", f"{said(precision.get('dtype'))}: {said(precision.get('reason'))}"))
    if isinstance(device, Mapping):
        names = ", ".join(map(str, device.get("names") or ())) or said(device.get("type"))
        lines.append(("device", f"{said(device.get('count'))} x {names}"))
    return [*lines, ("memory", gibibytes(number(environment.get("memory"))))]


def data_of(run: RunFolder) -> Pairs:
    """What the run was trained on, one line each."""
    lines = [("source", said(run.data.get("source"))), ("fingerprint (SHA-256)", said(run.data.get("fingerprint")))]
    for name, key in (("rows", "rows"), ("rejected", "rejected"), ("completions cut at max_length", "truncated")):
        counts = run.data.get(key)
        if isinstance(counts, Mapping):
            lines.append((name, ", ".join(f"{what} {count}" for what, count in counts.items()) or "none"))
    return lines


def shared(runs: Sequence[RunFolder], of: Callable[[RunFolder], Pairs]) -> list[tuple[str, Pairs]]:
    """The same facts once: (names of the runs that share them, facts); an empty name where all runs do."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        found.setdefault(tuple(of(run)), []).append(run.name)
    return [("" if len(found) == 1 else ", ".join(names), list(pairs)) for pairs, names in found.items()]
