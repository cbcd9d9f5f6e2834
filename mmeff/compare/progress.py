"""How far a comparison is: a line for each part that is done, and in a terminal a bar below them."""

from types import TracebackType

from rich import progress
from rich.console import Console


class Progress:
    """Use it as a context; outside a terminal there are lines alone."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
        remaining = progress.TimeRemainingColumn()
        self.bar = progress.Progress(
            *columns, remaining, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        self.task = self.bar.add_task("", total=None)
        self.total = self.count = 0

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def begin(self, total: int) -> None:
        self.total = total
        self.bar.update(self.task, total=total)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def done(self, name: str, seconds: float | None) -> None:
        """One more part is done; None: it was measured in an earlier run."""
        self.count += 1
        self.bar.update(self.task, completed=self.count)
        self.say(f"[{self.count}/{self.total}] {name}  {'known' if seconds is None else f'{seconds:.1f} s'}")
