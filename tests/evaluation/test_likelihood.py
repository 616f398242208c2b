"""What continuations cost: held against the model's own logits, with and without a shared cache."""

import pytest
import torch

from dudi.evaluation import likelihood
from dudi.evaluation.likelihood import LikelihoodQuestion, costs, text_nats
from helpers import make_model


def by_logits(model, context, text):
    """The cost of a continuation, from the whole of the logits."""
    ids = torch.tensor([[*context, *text]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0].double()
    rows = logits[len(context) - 1 : -1].log_softmax(-1)
    labels = torch.tensor(text)
    return -float(rows.gather(-1, labels[:, None]).sum()), bool((rows.argmax(-1) == labels).all())


def questions(seed=0):
    """Contexts and continuations of every length, several of each number of continuations."""
    draw = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(3, 400, (count,), generator=draw).tolist()

    shapes = [(5, (1, 1)), (17, (3, 1, 4)), (9, (2, 2, 2)), (40, (1,)), (6, (8, 2)), (31, (5, 1, 1)), (1, (2, 3))]
    return [LikelihoodQuestion(ids(length), [ids(one) for one in parts]) for length, parts in shapes]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("positions", [16, 512])
def test_as_the_models_own_logits_say(kind, positions, monkeypatch):
    monkeypatch.setattr(likelihood, "POSITIONS_CPU", positions)
    model, asked, through = make_model(kind, seed=3).eval(), questions(), []
    found = costs(model, asked, through.append)
    assert sum(through) == len(asked)
    for one, own in zip(asked, found, strict=True):
        for text, cost in zip(one.continuations, own, strict=True):
            nats, greedy = by_logits(model, one.context, text)
            assert cost.nats == pytest.approx(nats, abs=1e-3) and cost.greedy == greedy


def test_the_cache_is_used_and_gives_the_same(monkeypatch):
    model, read = make_model(seed=3).eval(), []
    asked = [
        LikelihoodQuestion(5 * list(one.context), one.continuations) for one in 4 * questions()
    ]  # long beside their choices
    decoder = model.get_decoder()
    monkeypatch.setattr(
        decoder, "forward", lambda *a, _f=decoder.forward, **k: (read.append(k["input_ids"].numel()), _f(*a, **k))[1]
    )
    shared = costs(model, asked)
    together = sum(read)
    monkeypatch.setattr(likelihood, "_can_share", lambda *given: False)
    read.clear()
    whole = costs(model, asked)
    assert together < sum(read)
    for one, other in zip(shared, whole, strict=True):
        assert [c.nats for c in one] == pytest.approx([c.nats for c in other], abs=1e-3)


def test_a_cache_that_lies_is_not_trusted(monkeypatch):
    """A model that forgets its context when it reads from a cache is read whole."""
    model, asked = make_model(seed=3).eval(), questions()
    decoder, forward = model.get_decoder(), model.get_decoder().forward

    def forgets(*args, **keys):
        if keys.get("past_key_values") is not None and keys["past_key_values"].get_seq_length():
            keys |= {"past_key_values": None, "attention_mask": None, "position_ids": None}
        return forward(*args, **keys)

    monkeypatch.setattr(decoder, "forward", forgets)
    for one, own in zip(asked, costs(model, asked), strict=True):
        assert [c.nats for c in own] == pytest.approx(
            [by_logits(model, one.context, t)[0] for t in one.continuations], abs=1e-3
        )


def test_the_likeliest_token_is_greedy():
    model = make_model(seed=5).eval()
    context = [7, 8, 9]
    with torch.no_grad():
        best = int(model(input_ids=torch.tensor([context])).logits[0, -1].argmax())
    (own,) = costs(model, [LikelihoodQuestion(context, [[best], [best + 1], [best, 4]])])
    assert [one.greedy for one in own][:2] == [True, False]


def test_whole_texts():
    model = make_model(seed=3).eval()
    texts = [([1], one.context) for one in questions()]
    assert text_nats(model, texts) == pytest.approx([by_logits(model, *pair)[0] for pair in texts], abs=2e-3)
