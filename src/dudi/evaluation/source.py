"""Where a model that is evaluated comes from, and what makes it the one that it is."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat, chat_format, read_template, template_kwargs
from dudi.environment import choose_precision, device_type
from dudi.errors import ConfigError
from dudi.files import sha256_of
from dudi.models.load import load_model, load_tokenizer, locate, move
from dudi.objective.heads import check_head

ADAPTER = "adapter_config.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        model: What `from_pretrained` is given: a folder, a hub name, or `package:NAME`.
        name: What to call it, where nobody says.
        languages: The languages that it was trained in on the built-in benchmark; None where that is not known.
        tasks: The tasks, likewise.
        template_kwargs: What its chat template is rendered with.
        revision: Commit, tag or branch on the hub.
        dtype: Precision of the weights; `auto` follows the device.
        device: `auto`, `cpu`, `cuda:1` ...
        chat_template: A jinja file that replaces the model's own template.
        trust_remote_code: Run code that the model's repository brings.
    """

    model: str
    name: str
    languages: list[str] | None = None
    tasks: list[str] | None = None
    template_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    chat_template: Path | None = None
    trust_remote_code: bool = False

    def on(self) -> str:
        """The device, found out."""
        return device_type() if self.device == "auto" else self.device

    def precision(self) -> str:
        """The precision, found out."""
        return choose_precision("auto", use_cpu=self.on() == "cpu").dtype if self.dtype == "auto" else self.dtype

    def chat(self) -> ChatFormat:
        """Its chat format.

        Raises:
            ConfigError: no chat template, or a file that cannot be read.
            EnvironmentFault: the tokenizer cannot be had.
        """
        tokenizer = load_tokenizer(
            _tokenizer_folder(self.model), revision=self.revision, trust_remote_code=self.trust_remote_code
        )
        if self.chat_template is not None:
            tokenizer.chat_template = read_template(self.chat_template, "--chat-template")
        if not tokenizer.chat_template:
            raise ConfigError(f"{self.model}: its tokenizer has no chat template; give one with --chat-template FILE")
        return chat_format(tokenizer, self.template_kwargs, self.model)

    def load(self) -> PreTrainedModel:
        """The model, on its device.

        Raises:
            ConfigError: no such device, or a model that dudi cannot score.
            EnvironmentFault: the model cannot be had.
        """
        if (Path(locate(self.model)) / ADAPTER).is_file() and importlib.util.find_spec("peft") is None:
            raise ConfigError(f"{self.model}: is an adapter, and the package peft is missing: pip install 'dudi[peft]'")
        dtype = getattr(torch, self.precision())
        model = load_model(
            self.model, dtype=dtype, revision=self.revision, trust_remote_code=self.trust_remote_code
        ).eval()
        try:
            move(model, self.on())
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(f"--device {self.device}: {str(error).splitlines()[0][:160]}; see `dudi env`") from error
        check_head(model)
        return model

    def identity(self, chat: ChatFormat) -> dict[str, Any]:
        """What decides its answers beside the questions: another one under the same name is another model."""
        files = sorted(Path(locate(self.model)).glob("*.safetensors"))
        sums = [f"{sha256_of(file)}  {file.name}" for file in files]
        return {
            "weights": hashlib.sha256("\n".join(sums).encode()).hexdigest() if files else None,
            "revision": self.revision,
            "dtype": self.precision(),
            "chat_template": chat.digest,
        }


def source_of(model: str, **options: Any) -> Source:
    """Where the model of a command line comes from: a run folder stands for the model in it.

    Args:
        model: A folder, a hub name, `package:NAME`, or the folder of a finished run.
        options: Further fields of `Source`.

    Raises:
        ConfigError: a run that has no final model.
    """
    folder = Path(model)
    if not (folder / "resolved.yaml").is_file():
        parts = [part for part in (folder.resolve().parts if folder.is_dir() else model.split("/")) if part]
        name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
        return Source(model, name.removeprefix("package:"), **options)
    if not (folder / "model" / "config.json").is_file():
        raise ConfigError(f"{model}: the run has no final model yet; finish it with `dudi train`")
    from dudi.data.cldr.benchmark import NAME, TASKS
    from dudi.distill.recipe import load_run_config

    config = load_run_config(folder / "resolved.yaml")
    built_in = config.data.train == NAME
    return Source(
        str(folder / "model"),
        folder.resolve().name,
        languages=list(config.settings["languages"]) if built_in else None,
        tasks=(config.data.tasks or list(TASKS)) if built_in else None,
        template_kwargs=template_kwargs(config.settings["chat_template_kwargs"], "student"),
        **options,
    )


def _tokenizer_folder(model: str) -> str:
    """The model's own folder; that of its base where it is an adapter without a tokenizer."""
    folder = Path(locate(model))
    if not (folder / ADAPTER).is_file() or (folder / "tokenizer_config.json").is_file():
        return model
    base = json.loads((folder / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    return str(base or model)
