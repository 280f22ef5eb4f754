import numpy as np
import pytest
import torch

from metseg.network import build_network
from metseg.plan.networks import SegResNetPlan
from metseg.predict import graph_network
from metseg.predict.device import Device
from metseg.predict.graph_network import GraphNetwork

PLAN = SegResNetPlan(init_filters=8)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return build_network(PLAN, in_channels=2, out_channels=3).eval().requires_grad_(requires_grad=False)


def graph_of(module, *, threads=2, precision="float32"):
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return GraphNetwork(PLAN, state, in_channels=2, device=Device("cpu", precision, "a CPU", threads))


def test_a_batch_is_answered_window_by_window(module):
    batch = torch.rand(5, 2, 16, 24, 16)
    torch.testing.assert_close(graph_of(module)(batch), module(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_window_has_the_same_bits_alone_and_beside_others_with_any_threads(module, precision):
    batch = torch.rand(5, 2, 32, 24, 40)
    alone = torch.cat([graph_of(module, threads=1, precision=precision)(window[None]) for window in batch])
    for threads in (1, 2, 3):
        assert torch.equal(graph_of(module, threads=threads, precision=precision)(batch), alone)


def test_windows_of_another_size_are_answered_too(module):
    graph = graph_of(module)
    for batch in (torch.rand(2, 2, 16, 16, 16), torch.rand(1, 2, 24, 16, 32), torch.rand(3, 2, 16, 16, 16)):
        torch.testing.assert_close(graph(batch), module(batch), rtol=1e-4, atol=1e-5)


def test_what_lies_scattered_in_memory_is_read_rightly(module):
    batch = torch.rand(2, 2, 16, 24, 16).flip(3).contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(graph_of(module)(batch), module(batch), rtol=1e-4, atol=1e-5)


def test_an_answer_stays_when_the_next_window_comes(module):
    graph, window = graph_of(module), torch.rand(1, 2, 16, 16, 16)
    answer = graph(window)
    before = answer.clone()
    graph(torch.rand(1, 2, 16, 16, 16))
    assert torch.equal(answer, before)


def test_after_a_rest_it_answers_the_same(module):
    graph, window = graph_of(module), torch.rand(1, 2, 16, 16, 16)
    graph.rest()
    before = graph(window)
    graph.rest()
    assert torch.equal(graph(window), before)


def test_a_window_is_waited_for_in_short_turns(module, monkeypatch):
    """An interrupt is heard between two of them."""
    monkeypatch.setattr(graph_network, "PATIENCE_MS", 0)
    window = torch.rand(1, 2, 64, 64, 64)
    torch.testing.assert_close(graph_of(module)(window), module(window), rtol=1e-4, atol=1e-5)


def test_it_is_compiled_once_for_windows_of_one_size(module, monkeypatch):
    made = []
    build = graph_network.build_graph
    monkeypatch.setattr(graph_network, "build_graph", lambda *a, **k: made.append(k["sides"]) or build(*a, **k))
    graph, batch = graph_of(module), torch.rand(4, 2, 16, 16, 16)
    for count in (2, 1, 4):
        graph(batch[:count])
    assert made == [(16, 16, 16)]
    assert np.isfinite(graph(batch).numpy()).all()


def test_an_interrupt_leaves_nothing_running(module, monkeypatch):
    """Memory can be given back at once, and the next windows are answered."""
    graph, batch = graph_of(module), torch.rand(2, 2, 64, 64, 64)
    expected = graph(batch)

    def interrupt(_request):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(graph_network, "_wait_for", interrupt)
        with pytest.raises(KeyboardInterrupt):
            graph(batch)
    graph.rest()
    assert torch.equal(graph(batch), expected)
