"""Widths of inner layers; that every mixer has such is tested beside the mixers."""

from mmeff.widths import aligned


def test_widths_are_rounded_up() -> None:
    assert [aligned(n) for n in (1, 8, 9, 902)] == [8, 8, 16, 904]
