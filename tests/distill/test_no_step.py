"""A run whose rows make no whole batch is refused before anything is trained or written."""

import pytest

from dudi import DudiTrainer
from dudi.errors import ConfigError
from helpers import ROWS, make_args, make_model


def make_trainer(folder, tokenizer, method, batch, **keys):
    args = make_args(
        folder,
        method,
        dataloader_drop_last=True,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        **keys,
    )
    return DudiTrainer(make_model(seed=1), make_model(seed=2), args, ROWS[:16], None, tokenizer)


@pytest.mark.parametrize("keys", [{"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 1}])
@pytest.mark.parametrize(("method", "more"), [("sft", {}), ("dudi", {}), ("gkd", {"cold_start": "none"})])
def test_fewer_rows_than_a_batch(method, more, keys, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, method, 17, **more, **keys)
    with pytest.raises(ConfigError, match="dataloader_drop_last: 16 rows make no whole batch of 17"):
        trainer.train()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_whole_batch_is_a_step(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, "sft", 16, max_steps=-1, num_train_epochs=1)
    assert trainer.train().global_step == 1


def test_no_step_for_another_reason(tmp_path, tokenizer, monkeypatch):
    trainer = make_trainer(tmp_path, tokenizer, "sft", 4, max_steps=2)
    monkeypatch.setattr(trainer, "get_train_dataloader", lambda: [])
    with pytest.raises(ConfigError, match="no step was taken"):
        trainer.train()
