"""What stands above every result: where, when and how it was measured."""

from typing import Any

from mmeff.compare.noise import in_words

#: In this order, before what else a run says of itself.
NAMES = {
    "device": "Device",
    "threads": "CPU threads",
    "versions": "Versions",
    "code": "Code",
    "commit": "Commit",
    "swings": "Swings of the machine",
    "date": "Date",
}


def facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and texts: device, versions, date and whatever else the run says of itself; its command last."""
    known = [key for key in NAMES if key in about]
    others = [key for key in about if key not in NAMES and key != "command"]
    about = {**about, "swings": in_words(about["swings"])} if "swings" in about else about
    found = [(NAMES.get(key, key.replace("_", " ").capitalize()), as_text(about[key])) for key in (*known, *others)]
    return [*found, *([("Command", as_text(about["command"]))] if "command" in about else [])]


def as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {as_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " ".join(as_text(each) for each in value)
    return str(value)
