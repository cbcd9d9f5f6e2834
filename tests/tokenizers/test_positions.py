import pytest
import torch
from torch.nn.functional import interpolate

from mmeff.tokenizers import LearnedPositions, NoPositions, SinusoidalPositions
from mmeff.tokens import Tokens


def added(positions: torch.nn.Module, grid: tuple[int, ...], lengths: torch.Tensor | None = None) -> torch.Tensor:
    """(L, D): what is added to each cell of a grid."""
    L = torch.Size(grid).numel()
    return positions(Tokens(torch.zeros(1, L, positions.dim if hasattr(positions, "dim") else 8), grid, lengths)).x[0]


def test_none_leaves_the_tokens_as_they_are() -> None:
    tokens = Tokens(torch.randn(2, 6, 8), (6,))
    assert NoPositions(8)(tokens) is tokens


@pytest.mark.parametrize("grid", [(500,), (8, 64), (3, 5, 7)])
def test_sinusoids_tell_all_cells_apart(grid: tuple[int, ...]) -> None:
    table = added(SinusoidalPositions(48, scale=1.0), grid)
    distances = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert distances.min() > 0.5


def test_sinusoids_are_those_of_the_paper() -> None:
    table = added(SinusoidalPositions(8, scale=0.5), (11, 3))
    row, column, k = 10, 2, 1  # m = 2 frequencies an axis, 1 and 1/100
    cell = table[row * 3 + column] / 0.5
    for half, p in ((cell[:4], row), (cell[4:], column)):
        torch.testing.assert_close(half[k], torch.tensor(p / 100).sin())
        torch.testing.assert_close(half[2 + k], torch.tensor(p / 100).cos())


def test_a_width_that_the_axes_do_not_divide_keeps_zeros() -> None:
    assert not added(SinusoidalPositions(10), (4, 4))[:, 8:].any()
    with pytest.raises(ValueError, match="width 3"):
        added(SinusoidalPositions(3), (4, 4))


def test_longer_clips_have_the_sinusoids_of_shorter_ones() -> None:
    positions = SinusoidalPositions(16)
    assert torch.equal(added(positions, (4, 8)), added(positions, (9, 8))[:32])


def test_learned_positions_are_trained_without_decay() -> None:
    positions = LearnedPositions(8, [4, 4])
    assert positions.table._no_weight_decay  # type: ignore[attr-defined]
    assert torch.equal(added(positions, (4, 4)), positions.table)


@pytest.mark.parametrize(("own", "other"), [([4, 6], (7, 3)), ([5], (9,))])
def test_full_rows_on_another_grid_get_the_table_resampled(own: list[int], other: tuple[int, ...]) -> None:
    positions = LearnedPositions(8, own)
    as_image = positions.table.T.reshape(1, 8, *([1] if len(own) == 1 else []), *own)
    size = other if len(other) == 2 else (1, *other)
    expected = interpolate(as_image, size=size, mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(added(positions, other), expected)


def test_a_padded_batch_gets_the_first_cells() -> None:
    positions = LearnedPositions(8, [6, 4])
    shorter = added(positions, (5, 4), torch.tensor([12]))
    assert torch.equal(shorter, positions.table[:20])


@pytest.mark.parametrize("grid", [(7, 4), (6, 5), (5, 3)])
def test_a_padded_batch_beyond_the_table_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="larger grid"):
        added(LearnedPositions(8, [6, 4]), grid, torch.tensor([4]))


def test_a_grid_of_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot serve"):
        added(LearnedPositions(8, [6, 4]), (24,))
