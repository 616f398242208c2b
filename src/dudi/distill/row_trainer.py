"""A trainer whose datasets are rows as users write them, at the start and wherever `Trainer` takes others later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dudi.data.examples import ExampleSet, ListedExamples
from dudi.data.rejections import Rejections
from dudi.distill.arguments import DudiConfig
from dudi.distill.dataset import MAX_REJECTED_SHARE, tell_rejections
from dudi.distill.setup import Setup
from dudi.training.logged import LoggedTrainer


class RowTrainer(LoggedTrainer):
    """Reads rows: those it was made with, others in their place, and those of one evaluation.

    Attributes:
        setup: What the run is made of; its reader reads the rows.
        max_rejected_share: Largest share of rows of a dataset that may be rejected.
    """

    args: DudiConfig
    setup: Setup
    max_rejected_share: float = MAX_REJECTED_SHARE

    @property
    def train_dataset(self) -> Any:
        """The examples that are trained on; other rows can be put in their place before `train`, as in `Trainer`."""
        return self._train_examples

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        examples = self._examples_of(dataset, "train_dataset")
        if isinstance(examples, ExampleSet):
            self.use_examples(examples)
            self._identity = None  # it is another run
        else:
            self._train_examples = examples

    def use_examples(self, examples: ExampleSet) -> None:
        """Train on these, which may be other targets for the same rows."""
        self.setup.train = examples
        self._train_examples = ListedExamples(examples.examples)

    @property
    def eval_dataset(self) -> Any:
        """The examples of evaluation, by name where there are several sets; other rows can be put in their place."""
        return self._eval_examples

    @eval_dataset.setter
    def eval_dataset(self, dataset: Any) -> None:
        self._eval_examples = self._listed_rows(dataset, "eval_dataset")

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As `Trainer`'s, for rows as users write them too: one dataset, or several by name.

        Args:
            eval_dataset: Rows, a dict of datasets, or the name of one that the trainer has; its own when None.
            ignore_keys: As in `Trainer`.
            metric_key_prefix: Of the metrics' names.
        """
        known = eval_dataset is None or isinstance(eval_dataset, str)
        given = eval_dataset if known else self._listed_rows(eval_dataset, "eval_dataset")
        return super().evaluate(given, ignore_keys, metric_key_prefix)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `Trainer`'s, for rows as users write them too: `predict` gives the metrics of them, and no logits."""
        return super().get_test_dataloader(self._listed_rows(test_dataset, "test_dataset"))

    def _listed_rows(self, dataset: Any, name: str) -> Any:
        if isinstance(dataset, Mapping):
            return {key: self._listed_rows(one, f"{name}[{key!r}]") for key, one in dataset.items()}
        examples = self._examples_of(dataset, name)
        return ListedExamples(examples.examples) if isinstance(examples, ExampleSet) else examples

    def _examples_of(self, dataset: Any, name: str) -> ExampleSet | ListedExamples | None:
        """Rows as examples; examples as they are."""
        if dataset is None or isinstance(dataset, ExampleSet | ListedExamples):
            return dataset
        rejections = Rejections()
        examples, total = self.setup.reader.read(dataset, name, rejections)
        file = f"rejected-{name.partition('[')[0]}.jsonl"  # beside those of the rows that it was made with
        tell_rejections(rejections, total, self.args, self.max_rejected_share, file)
        return examples


def listed(examples: ExampleSet | dict[str, ExampleSet] | None) -> Any:
    """Examples as the datasets that `Trainer` reads."""
    if isinstance(examples, dict):
        return {name: ListedExamples(one.examples) for name, one in examples.items()}
    return None if examples is None else ListedExamples(examples.examples)
