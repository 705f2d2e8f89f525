"""What a log says of its run besides the records: seed, versions, configuration; as flat strings, never evaluated."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_ENTRIES = 2000
LONGEST_VALUE = 300
LONGEST_CONFIG = 1 << 18
LONGEST_SETTING = 500
_DEEPEST = 12

_SETTINGS = {
    "banner": re.compile(r"\s*\|?\s*([A-Za-z][\w .-]{0,40}?)\s+\|\s+(\S.*?)\s*\|?\s*$"),
    "environment": re.compile(r"\s{2,}([A-Za-z][\w ./-]{0,60}):\s(.+)$"),
}
_SEED = re.compile(r"\b(?:set random seed to|seed\s*[:=])\s*(\d{1,20})\b", re.IGNORECASE)
_RESUMED = re.compile(r"\bresumed? (?:from )?(?:epoch|iter)\D{0,3}\d[^\r\n]{0,80}", re.IGNORECASE)
_STAMPED = re.compile(r"\s*\[?(?:\d{4}[-/])?\d\d[-/]\d\d[ T]\d\d:\d\d:")
_ASSIGNED = re.compile(r"[A-Za-z_]\w* = ")
_VERSIONS = {
    *("pytorch", "torch", "torchvision", "python", "mmengine", "mmcv", "mmdetection", "mmsegmentation", "opencv"),
    *("torch-sdaa", "sdaa driver", "sdaa runtime", "sdpti", "tecodnn", "tecoblas", "customdnn", "tecorand", "tccl"),
    *("numpy", "transformers", "tensorboard", "cuda", "cudnn", "nvcc", "gcc"),
}


@dataclass(slots=True)
class Header:
    """A bounded table of what is known, and the state of looking through lines of text for it."""

    entries: dict[str, str] = field(default_factory=dict)
    _block: str = ""
    _config: list[str] | None = None
    _size: int = 0

    def put(self, name: str, value: object) -> None:
        """Note one entry; a later one of the same name wins, and what is too much is left out."""
        name = _whole(name)[:LONGEST_VALUE]
        if name in self.entries or len(self.entries) < MOST_ENTRIES:
            self.entries[name] = _whole(str(value))[:LONGEST_VALUE]

    def put_all(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Note the entries of nested mappings and lists under dotted names."""
        for name, value in _flat(prefix, values, _DEEPEST):
            self.put(name, value)

    def read(self, line: str) -> None:
        """Look at one line that is no record."""
        if self._config is not None and self._read_config(line):
            return
        text = line.rstrip()
        if not text:
            return
        if text.endswith("Config:"):
            self._config, self._size = [], 0
        elif text.endswith(("System environment:", "Runtime environment:")):
            self._block = "environment"
        elif text.startswith("----"):
            self._block = "banner" if "+" in text else ""
        elif self._block and len(text) <= LONGEST_SETTING and (found := _SETTINGS[self._block].match(text)):
            self._put_setting(found[1], found[2])
        else:
            self._look(text)

    def read_text(self, text: str) -> None:
        """Look at a text such as mmcv's ``env_info``: one setting per line."""
        for line in text[:LONGEST_CONFIG].splitlines()[:MOST_ENTRIES]:
            key, colon, value = line.partition(": ")
            if colon and len(key) < LONGEST_VALUE:
                self._put_setting(key.strip(), value.strip())

    def read_config(self, text: str) -> None:
        """Look at a configuration written as Python: assignments of literals and calls of ``dict``."""
        for name, value in _assignments(text):
            self.put(f"config.{name}", value)

    def close(self) -> dict[str, str]:
        """Return the entries after the last line."""
        self._end_config()
        return self.entries

    def _put_setting(self, key: str, value: str) -> None:
        if key.lower() == "seed":
            self.put("seed", value)
        else:
            self.put(f"{'versions' if key.lower() in _VERSIONS else 'environment'}.{key}", value)

    def _look(self, text: str) -> None:
        if len(text) > LONGEST_CONFIG:
            return
        if found := _SEED.search(text):
            self.put("seed", found[1])
        if found := _RESUMED.search(text):
            self.put("resumed", found[0])
        at = text.find("Namespace(")
        if at >= 0:
            for name, value in _call(text[at:]):
                self.put(f"config.{name}", value)

    def _read_config(self, line: str) -> bool:
        """Take a line of the configuration; False if it has ended."""
        if _STAMPED.match(line) or "TCAPPDLL" in line or self._size > LONGEST_CONFIG or self._config is None:
            self._end_config()
            return False
        self._config.append(line.rstrip("\r\n"))
        self._size += len(line)
        return True

    def _end_config(self) -> None:
        if self._config is not None and self._size <= LONGEST_CONFIG:
            self.read_config("\n".join(self._config))
        self._config = None


def _whole(text: str) -> str:
    """Return the text without halves of characters, which JSON may hold and nothing can print."""
    return text.encode("utf-8", "replace").decode()


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text[: LONGEST_CONFIG + 1])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    module = _parsed(text) or _parsed(_sound(text))
    for statement in module.body if module is not None else ():
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield from _flat(statement.targets[0].id, statement.value, _DEEPEST)


def _sound(text: str) -> str:
    """Return the statements before the one that is no Python, such as a warning of another process."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        lines = text.split("\n")[: error.lineno or 0]
        last = max((at for at, line in enumerate(lines) if _ASSIGNED.match(line)), default=0)
        return "\n".join(lines[:last])
    except (ValueError, RecursionError, MemoryError):
        return ""
    return text


def _call(text: str) -> Iterator[tuple[str, str]]:
    """Return the arguments of a printed ``Namespace(...)``, which may be followed by other text."""
    module = _parsed(text) or _parsed(text[: text.rfind(")") + 1])
    if module is not None and module.body and isinstance(module.body[0], ast.Expr):
        call = module.body[0].value
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            if keyword.arg is not None:
                yield from _flat(keyword.arg, keyword.value, _DEEPEST)


def _flat(name: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    """Return the leaves of a syntax tree or of decoded JSON under dotted names; what is too deep stays text."""
    pairs = list(_members(value)) if depth else []
    if pairs:
        for key, member in pairs:
            yield from _flat(f"{name}.{key}" if name else str(key), member, depth - 1)
    elif isinstance(value, ast.AST):
        yield name, str(value.value) if isinstance(value, ast.Constant) else _written(value)
    else:
        yield name, str(value)


def _members(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, ast.Dict):
        for key, member in zip(value.keys, value.values, strict=True):
            yield (key.value if isinstance(key, ast.Constant) else "?"), member
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        for keyword in value.keywords:
            yield keyword.arg or "?", keyword.value
    elif isinstance(value, ast.List | ast.Tuple) and any(isinstance(e, ast.Call | ast.Dict) for e in value.elts):
        yield from enumerate(value.elts)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        yield from enumerate(value)


def _written(value: ast.AST) -> str:
    try:
        return ast.unparse(value)
    except (RecursionError, ValueError):
        return "..."
