"""PTX text as modules, kernels and statements; nothing here knows what an instruction does."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w$%.]+(?:::[\w.]+)*|[^\s]')
_WIDTHS = {"pred": 1, "f16x2": 32, "bf16x2": 32}


class PtxSyntaxError(ValueError):
    """PTX that can't be read; the message says which line."""


class Token(NamedTuple):
    text: str
    line: int


@dataclass(frozen=True)
class Variable:
    """A variable or parameter: ``count`` elements of ``bits``, ``alignment`` in bytes. ``count`` is 0 for ``name[]``."""

    name: str
    space: str
    bits: int
    count: int
    alignment: int
    values: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.bits // 8 * self.count


class Register(NamedTuple):
    """``name<count>`` declares name0 and so on; ``count`` is 0 for one register of that very name."""

    name: str
    bits: int
    count: int


@dataclass
class Scope:
    """What is declared between two braces, and what lies around them."""

    outer: Scope | None = None
    registers: list[Register] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    label_lists: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Statement:
    """An instruction: ``operands`` are lists of tokens."""

    opcode: str
    operands: list[list[str]]
    guard: str | None
    unless: bool
    line: int
    scope: Scope


@dataclass
class Entry:
    name: str
    parameters: list[Variable]
    most_threads: int = 0
    statements: list[Statement] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)


@dataclass
class Module:
    target: str = ""
    variables: dict[str, Variable] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # by PTX line: file and line of the source

    def place(self, line: int) -> str | None:
        """Where in the source a line of PTX comes from, if the compiler has noted it."""
        at = bisect.bisect_right(self.places, (line, 1 << 60, 0)) - 1
        if at < 0:
            return None
        _, file, source_line = self.places[at]
        return f"{self.files.get(file, '?')}:{source_line}"


def parse(text: str) -> Module:
    """Read a PTX module.

    Raises:
        PtxSyntaxError: it is none.
    """
    return _Parser(text).module()


def _tokens(text: str) -> Iterator[Token]:
    plain = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    starts = [found.end() for found in re.finditer("\n", plain)]
    for found in _TOKEN.finditer(plain):
        yield Token(found[0], bisect.bisect_right(starts, found.start()) + 1)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._module = Module()

    # Tokens one by one.

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise PtxSyntaxError("the text ends within a statement")
        self._at += 1
        return self._tokens[self._at - 1].text

    @property
    def _line(self) -> int:
        return self._tokens[min(self._at, len(self._tokens) - 1)].line

    def _expect(self, text: str) -> None:
        line, found = self._line, self._next()
        if found != text:
            raise PtxSyntaxError(f"line {line}: expected {text!r}, found {found!r}")

    def _accept(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self._at += 1
        return True

    def _rest_of_line(self) -> list[str]:
        line, found = self._tokens[self._at - 1].line, []
        while self._at < len(self._tokens) and self._line == line:
            found.append(self._next())
        return found

    def _skip_block(self) -> None:
        self._expect("{")
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self._next(), 0)

    # The module.

    def module(self) -> Module:
        while self._at < len(self._tokens):
            word = self._next()
            if word in (".version", ".address_size"):
                self._rest_of_line()
            elif word == ".target":
                self._module.target = self._rest_of_line()[0]
            elif word == ".file":
                self._file()
            elif word == ".section":
                self._next()
                self._skip_block()
            elif word in (".visible", ".extern", ".weak", ".common", ";", ".pragma") or word.startswith('"'):
                continue
            elif word == ".entry":
                self._entry()
            elif word == ".func":
                self._skip_function()
            elif word in (".global", ".const", ".shared"):
                variable = self._variable(word[1:])
                self._module.variables[variable.name] = variable
            else:
                raise PtxSyntaxError(f"line {self._tokens[self._at - 1].line}: {word!r} begins nothing known")
        return self._module

    def _file(self) -> None:
        number, name = self._rest_of_line()[:2]
        self._module.files[int(number)] = name.strip('"')

    def _skip_function(self) -> None:
        """Calls are not emulated, so neither are functions."""
        while self._peek() not in ("{", ";", ""):
            self._at += 1
        if self._peek() == "{":
            self._skip_block()

    def _variable(self, space: str, *, ends: str = ";") -> Variable:
        alignment, bits = 0, 0
        while self._peek().startswith("."):
            word = self._next()
            if word == ".align":
                alignment = int(self._next())
            elif word not in (".ptr", ".global", ".shared", ".const", ".local"):
                bits = _bits(word)
        name, count = self._next(), 1
        while self._accept("["):
            count *= int(self._next(), 0) if self._peek() != "]" else 0
            self._expect("]")
        values = self._values() if self._accept("=") else ()
        if ends == ";":
            self._expect(";")
        return Variable(name, space, bits, count, alignment or max(bits // 8, 1), values)

    def _values(self) -> tuple[int, ...]:
        if not self._accept("{"):
            return (_number(self._next()),)
        found = []
        while not self._accept("}"):
            found.append(_number(self._next() + (self._next() if self._peek(-1) == "-" else "")))
            self._accept(",")
        return tuple(found)

    def _entry(self) -> None:
        entry = Entry(self._next(), [])
        if self._accept("("):
            while not self._accept(")"):
                self._expect(".param")
                entry.parameters.append(self._variable("param", ends=","))
                self._accept(",")
        while self._peek() != "{":
            word = self._next()
            if word in (".maxntid", ".reqntid"):
                entry.most_threads = int(self._next())
                while self._accept(","):
                    entry.most_threads *= int(self._next())
        self._body(entry)
        self._module.entries[entry.name] = entry

    # Bodies.

    def _body(self, entry: Entry) -> None:
        scope: Scope | None = None
        while True:
            line, word = self._line, self._next()
            if word == "{":
                scope = Scope(scope)
                entry.scopes.append(scope)
                continue
            assert scope is not None
            if word == "}":
                scope = scope.outer
                if scope is None:
                    return
            elif word == ".loc":
                file, source_line, *_ = self._rest_of_line()
                self._module.places.append((line, int(file), int(source_line)))
            elif word == ".reg":
                self._registers(scope)
            elif word in (".local", ".shared", ".param"):
                variable = self._variable(word[1:])
                scope.variables[variable.name] = variable
            elif word == ".pragma":
                while self._next() != ";":
                    pass
            elif self._peek() == ":":
                self._at += 1
                self._label(word, scope, len(entry.statements))
            elif word != ";":
                entry.statements.append(self._statement(word, line, scope))

    def _label(self, name: str, scope: Scope, at: int) -> None:
        if self._accept(".branchtargets"):
            scope.label_lists[name] = [one for one in self._until_semicolon() if one != ","]
        elif self._accept(".callprototype"):
            self._until_semicolon()
        else:
            scope.labels[name] = at

    def _until_semicolon(self) -> list[str]:
        found = []
        while (word := self._next()) != ";":
            found.append(word)
        return found

    def _registers(self, scope: Scope) -> None:
        bits = _bits(self._next())
        while True:
            name, count = self._next(), 0
            if self._accept("<"):
                count = int(self._next())
                self._expect(">")
            scope.registers.append(Register(name, bits, count))
            if not self._accept(","):
                break
        self._expect(";")

    def _statement(self, word: str, line: int, scope: Scope) -> Statement:
        guard, unless = None, False
        if word == "@":
            unless = self._accept("!")
            guard, word = self._next(), self._next()
        operands: list[list[str]] = []
        depth = 0
        for text in self._until_semicolon():
            if text == "," and depth == 0:
                operands.append([])
                continue
            if not operands:
                operands.append([])
            depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(text, 0)
            operands[-1].append(text)
        return Statement(word, operands, guard, unless, line, scope)


def _bits(word: str) -> int:
    name = word.lstrip(".")
    return _WIDTHS.get(name) or int(re.sub(r"\D", "", name))


def _number(text: str) -> int:
    """The bits of a literal: an integer, or a float given by its bits."""
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    digits = text.rstrip("U")
    if re.fullmatch(r"-?0[0-7]+", digits):
        return int(digits, 8)
    return int(digits, 0)


def number(text: str) -> int | None:
    """The bits of a literal, ``None`` for anything else."""
    try:
        return _number(text)
    except ValueError:
        return None
