"""What has been measured, line by line: a run that is stopped goes on where it was."""

import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mmeff
import mmeff_kernels
from mmeff_kernels.timing import name_of

Values = dict[str, Any]


class Journal:
    """A file of JSON lines, each with what was measured under which key; a line that is cut short is left out."""

    def __init__(self, path: Path, conditions: dict[str, Any]):
        """conditions: what must be the same for a measurement to hold: code, versions, device, threads."""
        self.path, self.conditions = path, conditions
        self.known: dict[str, Values] = {}
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[entry["key"]] = entry["values"]

    def key(self, part: dict[str, Any]) -> str:
        text = json.dumps([self.conditions, part], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def find(self, part: dict[str, Any]) -> Values | None:
        return self.known.get(self.key(part))

    def add(self, part: dict[str, Any], values: Values) -> None:
        key = self.key(part)
        self.known[key] = values
        with self.path.open("a") as file:
            # A line on its own, also after one that a kill has cut short.
            begin = "\n" if file.tell() else ""
            file.write(begin + json.dumps({"key": key, "values": values}))


def conditions(device: torch.device) -> dict[str, Any]:
    """What measurements depend on besides the plan."""
    versions = {"python": platform.python_version(), "mmeff": mmeff.__version__}
    versions |= {name: version(name) for name in ("torch", "triton")}
    return {
        "device": name_of(device),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "code": code_hash(),
    }


def about(conditions: dict[str, Any], command: str) -> dict[str, Any]:
    """What stands beside the results: the conditions, when, and the command."""
    return {**conditions, "date": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}


def code_hash() -> str:
    """Of all Python sources of mmeff and mmeff_kernels."""
    found = hashlib.sha256()
    for package in (mmeff, mmeff_kernels):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]
