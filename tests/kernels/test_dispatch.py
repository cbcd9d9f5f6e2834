"""Which implementation serves, the table of operators, and what the package needs."""

import ast
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from mmeff_kernels import dispatch
from mmeff_kernels.decay import decay_attention

ROOT = Path(__file__).parents[2]
Impl = Literal["auto", "triton", "torch", "reference"]


class OnCuda:
    """As much of a tensor as the choice looks at."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        self.is_cuda, self.dtype = True, dtype


@pytest.mark.parametrize(
    ("tensors", "options", "chosen"),
    [
        ({"x": OnCuda()}, {}, "triton"),
        ({"x": OnCuda(), "z": OnCuda(torch.float64)}, {}, "torch"),
        ({"x": OnCuda(), "z": None}, {"beyond": "serves up to 4 states"}, "torch"),
        ({"x": torch.zeros(1)}, {}, "torch"),
    ],
)
def test_auto_takes_the_kernels_on_cuda_where_they_serve(tensors: Any, options: Any, chosen: str) -> None:
    assert dispatch.choose("auto", Impl, tensors, **options) == chosen
    assert dispatch.choose("reference", Impl, tensors, **options) == "reference"


def test_what_is_forced_is_taken_on_any_device_until_the_end() -> None:
    x = {"x": torch.zeros(1)}
    with dispatch.forced("triton"):
        assert dispatch.traced()
        assert dispatch.choose("auto", Impl, x) == "triton"
        assert dispatch.choose("torch", Impl, x) == "torch", "a named one is never another"
        assert dispatch.choose("auto", Impl, x, beyond="serves less") == "torch"
        assert dispatch.choose("auto", Impl, x, opaque=False) == "torch", "no kernel runs outside an operator"
        with dispatch.forced("reference"):
            assert dispatch.choose("auto", Impl, x) == "reference"
            assert dispatch.choose("auto", Literal["auto", "torch"], x) == "torch"
    assert dispatch.choose("auto", Impl, x) == "torch" and not dispatch.traced()
    q = torch.randn(1, 5, 2, 4)
    with dispatch.forced("reference"):
        forced, _ = decay_attention(q, q, q, -torch.rand(1, 5, 2))
    assert forced.isfinite().all()


def test_a_shape_beyond_the_kernels_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match="impl 'triton' serves up to 4 states"):
        dispatch.choose("triton", Impl, {"x": torch.zeros(1)}, "serves up to 4 states")
    with pytest.raises(ValueError, match="impl 'cuda': choose one of auto, triton"):
        dispatch.choose("cuda", Impl, {"x": torch.zeros(1)})


def test_the_table_has_every_operator_with_its_backward_pass_and_a_check() -> None:
    dispatch.load()
    names = {name.removeprefix("mmeff::") for name in dispatch.OPERATORS}
    forward = {name.removesuffix("_forward") for name in names if name.endswith("_forward")}
    assert names == {f"{name}_{way}" for name in forward for way in ("forward", "backward")}
    assert {"selective_scan", "decay", "full_sum", "corner_scan", "line_scan"} <= forward
    for operation in dispatch.packages():
        assert (ROOT / f"kernels/mmeff_kernels/{operation}/check.py").is_file(), f"{operation} has no check.py"


def test_the_package_imports_torch_and_triton_and_nothing_else() -> None:
    allowed = {*sys.stdlib_module_names, "torch", "triton", "mmeff_kernels"}
    for path in (ROOT / "kernels/mmeff_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = {str(node.module).partition(".")[0]}
            else:
                continue
            assert found <= allowed, f"{path.name} imports {found - allowed}"
