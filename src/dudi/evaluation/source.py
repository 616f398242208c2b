"""Where a model that is evaluated comes from, and what makes it the one that it is."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat, chat_format, plain_format, read_template, template_kwargs
from dudi.environment import choose_precision, device_type
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.entry import Trained
from dudi.evaluation.evaluate import Subject
from dudi.files import sha256_of_files
from dudi.models.limits import check_ids
from dudi.models.load import load_model, load_tokenizer, locate, move
from dudi.objective.heads import check_head
from dudi.training.checkpoints import steps_in

if TYPE_CHECKING:
    from dudi.distill.recipe import RunConfig

ADAPTER = "adapter_config.json"
GGUF = ".gguf"
RECIPE = "resolved.yaml"
_FOLDERS = {"model", "checkpoints", "stages"}
"""In which a run keeps models; their names say nothing."""
_DEEPEST = 4
"""Folders between a run and a model in it: `stages/cold_start/checkpoints/step-200`."""
_FILES = ("revision", "gguf_file", "trust_remote_code")
"""What says which files of a model are read, and how."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        model: What `from_pretrained` is given: a folder, a hub name, or `package:NAME`.
        name: What to call it, where nobody says.
        trained: What it was trained on, of a run.
        template_kwargs: What its chat template is rendered with.
        revision: Commit, tag or branch on the hub.
        dtype: Precision of the weights; `auto` follows the device, which may be `auto` too.
        chat_template: A jinja file that replaces the model's own template.
        template_name: Which of the chat templates of a tokenizer that has several.
        gguf_file: A GGUF file in the folder or repository `model`, whose weights are made dense.
    """

    model: str
    name: str
    trained: Trained | None = None
    template_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    chat_template: Path | None = None
    template_name: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None

    def subject(self, template: bool = True) -> Subject[ChatFormat]:
        """The model as one that answers; its tokenizer is read now, its weights when its turn comes.

        These are held against the tokenizer: a model without embeddings for its ids is a ConfigError then.

        Args:
            template: Whether it must have a chat template.

        Raises:
            ConfigError: no chat template, or a file that cannot be read.
            EnvironmentFault: the tokenizer cannot be had.
        """
        chat = self.chat(template)

        def opened() -> tuple[PreTrainedModel, ChatFormat]:
            loaded = self.load()
            check_ids(loaded, chat.tokenizer, self.model)
            return loaded, chat

        model = self.model if self.gguf_file is None else f"{self.model}/{self.gguf_file}"
        return Subject(self.name, model, opened, about={"subject": self.identity(chat)})

    def on(self) -> str:
        """The device, found out."""
        return device_type() if self.device == "auto" else self.device

    def precision(self) -> str:
        """The precision, found out."""
        return choose_precision("auto", use_cpu=self.on() == "cpu").dtype if self.dtype == "auto" else self.dtype

    def chat(self, template: bool = True) -> ChatFormat:
        """Its chat format; as `subject` has it. An adapter without a tokenizer has that of its base."""
        base, whole = base_of(self.model), (Path(locate(self.model)) / "tokenizer_config.json").is_file()
        name = self.model if base is None or whole else base
        tokenizer = load_tokenizer(name, **{key: getattr(self, key) for key in _FILES})
        if self.chat_template is not None:
            tokenizer.chat_template = read_template(self.chat_template, "--chat-template")
        if self.template_name is not None:
            tokenizer.chat_template = _template_called(self.template_name, tokenizer.chat_template, self.model)
        if tokenizer.chat_template:
            return chat_format(tokenizer, self.template_kwargs, self.model)
        if template:
            raise ConfigError(f"{self.model}: its tokenizer has no chat template; give one with --chat-template FILE")
        return plain_format(tokenizer)

    def load(self) -> PreTrainedModel:
        """The model, on its device.

        Raises:
            ConfigError: no such device, or a model that dudi cannot score.
            EnvironmentFault: the model cannot be had.
        """
        if base_of(self.model) is not None and importlib.util.find_spec("peft") is None:
            raise ConfigError(f"{self.model}: is an adapter, and the package peft is missing: pip install 'dudi[peft]'")
        how = {key: getattr(self, key) for key in _FILES}
        model = load_model(self.model, dtype=getattr(torch, self.precision()), **how).eval()
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
        found = {"weights": weights_of(self.model, self.gguf_file)}
        if (base := base_of(self.model)) is not None:
            found |= {"base": base, "base_weights": weights_of(base)}
        return found | {"revision": self.revision, "dtype": self.precision(), "chat_template": chat.digest}


def _template_called(name: str, templates: str | Mapping[str, str] | None, model: str) -> str:
    """One of several chat templates of a tokenizer."""
    known = templates if isinstance(templates, Mapping) else {}
    if name not in known:
        what = f"its chat templates are {', '.join(known)}" if known else "its tokenizer has no templates with names"
        raise ConfigError(f"--apply-chat-template {name}: {model}: {what}{did_you_mean(name, known)}")
    return known[name]


def weights_of(model: str, gguf_file: str | None = None) -> str | None:
    """SHA-256 over a model's safetensors or its GGUF file; None where they do not lie on this disk."""
    files = sorted(Path(locate(model)).glob(gguf_file or "*.safetensors"))
    return sha256_of_files(files) if files else None


def base_of(model: str) -> str | None:
    """The model that an adapter was trained for, itself where it names none; None for a model that is no adapter."""
    file = Path(locate(model)) / ADAPTER
    if not file.is_file():
        return None
    base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return str(base or model)


def source_of(model: str, **options: Any) -> ModelSource:
    """Where the model of a command line comes from: a run folder stands for the model in it.

    What a run keeps, such as a checkpoint, is asked as the run is and called after it.

    Args:
        model: A folder, a hub name, `package:NAME`, or the folder of a finished run; each of the first three may end
            with the name of a GGUF file in it.
        options: Further fields of `ModelSource`.

    Raises:
        ConfigError: a run that has no final model, a folder of checkpoints, or a recipe that cannot be read.
    """
    if model.lower().endswith(GGUF):
        place, _, file = model.rpartition("/")
        return ModelSource(place or ".", Path(file).stem, gguf_file=file, **options)
    folder = Path(model)
    above = _run_above(folder) if folder.is_dir() else None
    if above is not None and folder.name == "checkpoints":
        raise ConfigError(f"{model}: holds checkpoints; {_naming_one(folder)}")
    if above is not None:
        inside = folder.resolve().relative_to(above).parts
        name = "-".join([above.name, *(part for part in inside if part not in _FOLDERS)])
        return ModelSource(model, name, **_as_trained(above), **options)
    if not (folder / RECIPE).is_file():
        parts = [part for part in (folder.resolve().parts if folder.is_dir() else model.split("/")) if part]
        name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
        return ModelSource(model, name.removeprefix("package:"), **options)
    if not (folder / "model" / "config.json").is_file():
        or_one = _naming_one(folder / "checkpoints")
        raise ConfigError(f"{model}: the run has no final model yet; finish it with `dudi train`, or {or_one}")
    return ModelSource(str(folder / "model"), folder.resolve().name, **_as_trained(folder), **options)


def _naming_one(checkpoints: Path) -> str:
    found = steps_in(checkpoints)
    return f"name one: {found[-1]}" if found else "name a checkpoint, of which there is none yet"


def _run_above(folder: Path) -> Path | None:
    """The run of `dudi train` that keeps a folder; None for a folder that no run keeps, and for a run itself."""
    if (folder / RECIPE).is_file():
        return None
    above = next((one for one in folder.resolve().parents[:_DEEPEST] if (one / RECIPE).is_file()), None)
    if above is None or not set(folder.resolve().relative_to(above).parts[:1]) <= _FOLDERS:
        return None
    lines = (above / RECIPE).read_text(encoding="utf-8", errors="replace").splitlines()
    return above if "student:" in lines else None  # else it is a stack's


def _as_trained(run: Path) -> dict[str, Any]:
    """What a run's recipe says of how its student is asked."""
    from dudi.distill.recipe import load_run_config

    config = load_run_config(run / RECIPE)
    return {
        "trained": trained_of(config, list(config.settings["languages"])),
        "template_kwargs": template_kwargs(config.settings["chat_template_kwargs"], "student"),
    }


def trained_of(config: RunConfig, languages: list[str]) -> Trained:
    """What a recipe's student is trained on."""
    data = config.data
    return Trained(source=data.train, languages=languages, tasks=data.tasks, whole=data.max_rows is None)
