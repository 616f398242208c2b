"""What our Stage 1 adds to the paper's: Muon, disturbed states, the whole LLM, batches of like length."""

import copy

import pytest
import torch
from stack_helpers import (
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
    parallel_rows,
    same,
    weights,
)

from dudi.errors import ConfigError
from dudi.stacking import Source, StackRow, align, build_stack
from dudi.stacking.muon import Muon, orthogonal
from dudi.stacking.sampling import POOL, LikeLength
from dudi.stacking.sequences import Disturbance

WHOLE = {
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 3e-3,
    "warmup_steps": 0,
    "save_strategy": "steps",
    "save_steps": 3,
    "muon": True,
    "train_sampling_strategy": "group_by_length",
    "state_shuffle": 0.5,
    "state_repeat": 0.2,
    "state_drop": 0.2,
}


# ---- Muon


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_an_update_is_orthogonal_and_keeps_the_gradient_s_directions(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.trace(left.T @ found @ right.T) > 0.9 * values.sum()


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_the_steps_are_torch_s_but_for_its_bf16(shape):
    """Which is why ours stays: where torch iterates in fp32 too, take torch's."""
    torch.manual_seed(0)
    start = torch.randn(*shape)
    own, other = (torch.nn.Parameter(start.clone()) for _ in range(2))
    ours = Muon([own], lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.Muon([other], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        own.grad = torch.randn(*shape)
        other.grad = own.grad.clone()
        ours.step()
        theirs.step()
        apart = float((own - other).detach().norm() / (own - start).detach().norm())
        assert 1e-3 < apart < 3e-2


def test_what_is_no_matrix_or_is_an_embedding_gets_adam():
    torch.manual_seed(0)
    vector, table = (torch.nn.Parameter(torch.randn(6)), torch.nn.Parameter(torch.randn(5, 4)))
    others = [torch.nn.Parameter(p.detach().clone()) for p in (vector, table)]
    own = Muon([{"params": [vector]}, {"params": [table], "muon": False}], lr=1e-2)
    adam = torch.optim.Adam(others, lr=1e-2, betas=(0.9, 0.98))
    for _ in range(5):
        for parameter, other in zip((vector, table), others, strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        own.step()
        adam.step()
    for parameter, other in zip((vector, table), others, strict=True):
        torch.testing.assert_close(parameter, other)


def test_muon_goes_on_to_the_bit_from_its_state():
    def steps(optimizer, parameters, count):
        for number in range(count):
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, 0.1 * number).addcmul_(parameter, parameter)
            optimizer.step()

    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    optimizer = Muon(first, lr=1e-2, weight_decay=0.1)
    steps(optimizer, first, 3)
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    other = Muon(second, lr=1e-2, weight_decay=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, first, 2)
    steps(other, second, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


# ---- disturbed states


def numbered(lengths):
    """States whose only entry is their column plus one, and their mask."""
    width = max(lengths)
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    return torch.arange(1.0, width + 1).expand(len(lengths), width)[..., None] * mask[..., None], mask


def rows_of(states, mask):
    return [states[row, mask[row].bool(), 0].tolist() for row in range(len(mask))]


def test_no_disturbance_is_the_identity():
    states, mask = numbered([5, 2])
    assert not Disturbance()
    assert rows_of(*Disturbance()(states, mask)) == rows_of(states, mask)


def test_states_are_dropped_but_never_all():
    torch.manual_seed(0)
    states, mask = numbered([1, 40, 3] * 50)
    found = rows_of(*Disturbance(drop=0.9)(states, mask))
    assert all(found)
    for row in found:
        assert row == sorted(set(row))
    assert len(found[1]) < 20
    assert {tuple(row) for row in found[::3]} == {(1.0,)}


def test_states_are_repeated_beside_themselves():
    torch.manual_seed(0)
    states, mask = numbered([400, 10])
    found, kept = Disturbance(repeat=0.25)(states, mask)
    long, short = rows_of(found, kept)
    assert long == sorted(long)
    assert set(long) == set(range(1, 401))
    assert 440 < len(long) < 560
    assert set(short) == set(range(1, 11))
    assert (kept.sort(dim=1, descending=True).values == kept).all()  # padded right


def test_a_share_of_the_texts_is_shuffled():
    torch.manual_seed(0)
    states, mask = numbered([12, 30] * 200)
    found = rows_of(*Disturbance(shuffle=0.3)(states, mask))
    assert all(sorted(row) == list(range(1, len(row) + 1)) for row in found)
    assert 80 < sum(row != sorted(row) for row in found) < 160


@pytest.mark.parametrize(
    "keys", [{"state_drop": 1.0}, {"state_shuffle": 1.5}, {"state_repeat": -0.1}], ids=lambda keys: next(iter(keys))
)
def test_a_share_outside_its_range_is_refused(keys, tmp_path):
    with pytest.raises(ConfigError, match=next(iter(keys))):
        make_stack_args(tmp_path, **keys)


# ---- like lengths


def test_batches_hold_like_lengths_and_every_row_once():
    lengths = [7 * number % 101 for number in range(2 * POOL * 4 + 3)]
    order = LikeLength(lengths, 4, seed=1)
    rows = list(order)
    assert sorted(rows) == list(range(len(lengths)))
    spread = [max(own) - min(own) for own in (lengths_of(rows[n : n + 4], lengths) for n in range(0, len(rows) - 3, 4))]
    assert sum(spread) / len(spread) < 4
    firsts = [lengths[row] for row in rows[: POOL * 4 : 4]]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


def lengths_of(rows, lengths):
    return [lengths[row] for row in rows]


def test_the_order_hangs_on_seed_and_epoch_alone():
    lengths = list(range(100))
    order, same, other = (LikeLength(lengths, 8, seed) for seed in (3, 3, 4))
    first = list(order)
    assert first == list(order) == list(same)
    assert first != list(other)
    order.set_epoch(1)
    assert sorted(order) == sorted(first)
    assert list(order) != first


# ---- the whole LLM


@pytest.fixture(scope="module")
def sources():
    return Source(make_nllb_tokenizer()), Source(make_llm_tokenizer())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("whole")
    model = build_stack(make_mt(), make_llm())
    args = make_stack_args(folder, **WHOLE)
    align(model, *sources, english_rows(), args, None, parallel_rows())
    return folder, model


def test_without_an_adapter_the_whole_llm_learns_from_a_frozen_copy(whole):
    folder, model = whole
    untouched = build_stack(make_mt(), make_llm())
    assert model.config.lora is None
    assert model.config.stage == "aligned"
    assert same(weights(model.encoder), weights(untouched.encoder))
    moved = {
        name for name, tensor in weights(model.llm).items() if not torch.equal(tensor, untouched.llm.state_dict()[name])
    }
    assert any("q_proj" in name for name in moved)
    assert not any("embed_tokens" in name for name in moved)  # the stack reads no tokens
    first, *_, last = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert "fvu/ind_Latn" in last
    assert "fvu/ind_Latn" not in first
    assert not model.disturbance


def test_the_whole_llm_goes_on_to_the_bit(whole, sources, tmp_path):
    folder, model = whole
    again = build_stack(make_mt(), make_llm())
    args = make_stack_args(tmp_path, **WHOLE)
    align(again, *sources, english_rows(), args, None, parallel_rows(), resume=folder / "checkpoints/step-3")
    assert same(weights(again), weights(model))


def test_only_training_is_disturbed(sources):
    stack = build_stack(make_mt(), make_llm())
    stack.disturbance = Disturbance(shuffle=1.0, drop=0.5)
    batch = sources[0].batch(["The cat sleeps on the mat."], ["eng_Latn"])
    with torch.no_grad():
        calm = stack.eval()(**batch).pooled
        assert torch.equal(calm, stack(**batch).pooled)
        assert not torch.equal(calm, stack.train()(**batch).pooled)


def test_rows_are_grouped_by_the_length_of_all_their_text(tmp_path, sources):
    from dudi.stacking.alignment import AlignmentLoss
    from dudi.stacking.trainer import StackTrainer

    rows = [StackRow("x" * n, "eng_Latn", id=str(n)) for n in range(1, 40)]
    args = make_stack_args(tmp_path, **WHOLE)
    stack = build_stack(make_mt(), make_llm())
    stack.requires_grad_(True)
    trainer = StackTrainer(stack, args, AlignmentLoss(*sources, args), rows)
    assert trainer._get_train_sampler().lengths == list(range(1, 40))
