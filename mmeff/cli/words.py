"""The options of the commands that take no recipe."""

import argparse
from typing import NoReturn

from mmeff.errors import InputError


class Words(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, as all of mmeff's are."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ValueError(word)
    return number


positive.__name__ = "whole number above 0"  # what argparse calls it: "invalid whole number above 0 value: '0'"
