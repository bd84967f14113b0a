# each answered call left out in turn: the run must fail
import sys, pytest, torch
sys.path.insert(0, "/work/main/tests/host")
import test_stock_runner as m
from test_stock_runner import answered_on_the_cpu, device, run
NAMES = ["torch.cuda.Stream","torch.cuda.current_stream","torch.Tensor.record_stream","torch.Tensor.cuda","torch.distributed.barrier","model"]
class Leaving:
    def __init__(self, mp, out): self.mp, self.out = mp, out
    def setattr(self, a, *rest):
        if a == self.out or (rest and rest[0] == self.out): return
        self.mp.setattr(a, *rest)
@pytest.mark.parametrize("out", NAMES)
def test_it(out, tmp_path, monkeypatch):
    m.answered_on_the_cpu.__wrapped__ if hasattr(m.answered_on_the_cpu,"__wrapped__") else None
    f = getattr(m.answered_on_the_cpu, "_fixture_function", None) or m.answered_on_the_cpu.__pytest_wrapped__.obj
    f(Leaving(monkeypatch, out))
    g = getattr(m.run, "_fixture_function", None) or m.run.__pytest_wrapped__.obj
    start = g("cpu", tmp_path, monkeypatch)
    with pytest.raises(Exception) as e:
        start(max_iters=2, test_splits=[])
    print("\n@@", out, type(e.value).__name__, str(e.value)[:90])
