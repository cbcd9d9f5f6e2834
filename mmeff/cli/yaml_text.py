"""YAML of the user's own: plain data alone, every key once, and no more than it looks like."""

from pathlib import Path
from typing import Any

import yaml

from mmeff.errors import InputError

#: Most values of a file, those that aliases repeat counted each time.
VALUES = 100_000


class Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text and refuses keys given twice, and aliases that never end or never stop."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and size(node, {}, set()) > VALUES:
            raise problem(f"with its aliases it holds more than {VALUES} values", node)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise problem(f"the key {key.value!r} is given twice: leave one out", key)
                    seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes all strings: YAML 1.1 and 1.2 differ in which bare words are numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def size(node: Any, known: dict[int, int], inside: set[int]) -> int:
    """Values of a node, with those behind its aliases."""
    if id(node) in inside:
        raise problem("an alias stands inside what it names", node)
    if id(node) not in known:
        inside.add(id(node))
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for one in below for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(size(part, known, inside) for part in parts)
        inside.remove(id(node))
    return known[id(node)]


def problem(what: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def load(text: str, where: str) -> Any:
    """The data that YAML describes. InputError begins with `where`."""
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where}: {yaml_reason(error)}") from error
    except RecursionError as error:
        raise InputError(f"{where}: it is nested too deeply") from error


def dump(data: Any) -> str:
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a YAML file: {error}. Save it as UTF-8") from error
    content = load(text, f"{path} is not a YAML file")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys: a recipe is a mapping such as `trainer: {{max_epochs: 5}}`")
    return content


def read_value(word: str, text: str) -> Any:
    return load(text, f"{word}: {text!r} is not YAML")


def yaml_reason(error: Exception) -> str:
    """The line and what is wrong in it, without the excerpt."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        hint = ": indent with spaces" if "'\\t'" in str(error.problem) else ""
        return f"line {error.problem_mark.line + 1}: {error.problem}{hint}"
    return " ".join(str(error).split())
