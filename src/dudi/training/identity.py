"""What a run is: its data, tokenizers, templates, models and keys. Another one is refused, difference by difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dudi.errors import ConfigError, NumericError, did_you_mean, first_of
from dudi.files import sha256_of_json
from dudi.training.checkpoints import hash_parameters

SHOWN = 6
"""Most differences in one message."""


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that turns text into ids: vocabulary, merges, normalisation, special tokens."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        for changing in ("padding", "truncation"):  # set by each call
            content.pop(changing, None)
    else:
        content = tokenizer.get_vocab()
    return sha256_of_json([content, tokenizer.special_tokens_map])


def hash_of_model(model: nn.Module, name: str, leave_out: Callable[[str], bool] | None = None) -> str:
    """Hash of a model's weights (`hash_parameters`), which are looked at on the way.

    Raises:
        NumericError: a weight is NaN or infinite.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericError(f"{name}: its weight {key} is not finite; nothing was trained. The model is damaged")
    return hash_parameters(model, leave_out)


def check_identity(
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
    what: str,
    allowed: Collection[str],
    defaults: Mapping[str, Any],
    *,
    allows: bool = True,
) -> None:
    """Refuse to go on with what belongs to another run: `what`, whose identity was `saved`.

    A key that `saved` does not know is one that a later version has brought; its default is what was there before.
    Where the verb `allows` it, `--allow-changed` names what may differ.

    Raises:
        ConfigError: with each difference, or a name in `allowed` that does not exist.
    """
    before, now = _flat({"keys": defaults}) | _flat(saved), _flat(own)
    for name in allowed:
        if name not in now:
            raise ConfigError(f"--allow-changed: there is no '{name}'{did_you_mean(name, now)}")
    differing = [name for name in now if before.get(name) != now[name] and name not in allowed]
    if not differing:
        return
    shown = [f"{name}: {_short(before.get(name))} -> {_short(now[name])}" for name in differing]
    ways = "another --output, or --resume never (in Python another output_dir)"
    if allows:
        told = f"--allow-changed {','.join(differing[:SHOWN])}"
        ways = f"another --output, --resume never, or {told} (in Python another output_dir, or trainer.allow_changed)"
    raise ConfigError(f"{what} belongs to a run with other settings ({first_of(shown, SHOWN, '; ')}); use {ways}")


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an identity by name, as they read back from JSON: keys of the config, fields of the adapter's."""
    parts = json.loads(json.dumps(dict(identity), default=str))
    keys, adapter = parts.pop("keys", {}), parts.pop("adapter", None)
    return parts | {f"adapter.{name}": value for name, value in (adapter or {}).items()} | keys


def _short(value: Any) -> str:
    """A value for people: of a hash, the beginning."""
    if isinstance(value, str) and len(value) == 64:
        return value[:8]
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    return str(value)
