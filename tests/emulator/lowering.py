"""Kernels as the core reads them: registers in slots, names as addresses, labels as numbers of instructions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.emulator.syntax import Entry, Module, PtxSyntaxError, Scope, Statement, Variable, number

SHARED_BASE = 1024  # as the core has it
_GAP = 16  # bytes between shared variables that belong to none of them
_SINK, _REGISTER, _CONSTANT, _ADDRESS, _VECTOR, _TARGET = range(6)
_MASK = (1 << 64) - 1

Operand = tuple[int, int, int, int, int, int]  # kind, bits, negated, index, count, offset


class Lowering:
    """One kernel of a module.

    Args:
        address_of: where a variable in global or constant memory or a parameter of this kernel lies.
    """

    def __init__(self, module: Module, entry: Entry, address_of: Callable[[Variable], int]) -> None:
        self._entry, self._address_of = entry, address_of
        self._slots: dict[tuple[int, str], int] = {}
        self._specials: dict[str, int] = {}
        self._constants: dict[int, int] = {}
        self._operands: list[Operand] = []
        self._texts: dict[str, int] = {}
        self._gaps: list[tuple[int, int]] = []
        self._symbols = {one.name: address_of(one) for one in (*entry.parameters, *_global(module))}
        self._shared_end = SHARED_BASE
        self._local_end = 0
        self._lay_out(module)
        self._instructions = [self._instruction(statement) for statement in entry.statements]

    def encoded(self) -> tuple[NDArray[np.int64], bytes]:
        """The kernel as numbers, and its texts with a line feed behind each."""
        found = [len(self._slots) + len(self._specials), self._shared_end - SHARED_BASE, self._dynamic, self._local_end]
        found += [self._entry.most_threads, len(self._constants), *(value - (value >> 63 << 64) for value in self._constants)]
        found.append(len(self._specials))
        for name, slot in self._specials.items():
            found += [self._text(name), slot]
        found += [len(self._gaps), *(edge for gap in self._gaps for edge in gap)]
        found += [len(self._operands), *(part for operand in self._operands for part in operand)]
        found += [len(self._instructions), *(part for instruction in self._instructions for part in instruction)]
        return np.array(found, np.int64), "".join(f"{text}\n" for text in self._texts).encode()

    def _lay_out(self, module: Module) -> None:
        """Shared variables, one behind another, those without a size behind all others and aligned as they say but no more."""
        scopes = self._entry.scopes
        shared = [*module.variables.values(), *(one for scope in scopes for one in scope.variables.values())]
        shared = [one for one in shared if one.space == "shared"]
        used = {token for statement in self._entry.statements for operand in statement.operands for token in operand}
        for variable in shared:
            if variable.count and variable.name in used:
                start = _aligned(self._shared_end + (_GAP if self._shared_end > SHARED_BASE else 0), variable.alignment)
                if start > self._shared_end:
                    self._gaps.append((self._shared_end, start))
                self._symbols[variable.name] = start
                self._shared_end = start + variable.nbytes
        alignment = max([16, *(one.alignment for one in shared if not one.count and one.name in used)])
        self._dynamic = _aligned(self._shared_end, alignment)
        if self._dynamic % (2 * alignment) == 0:
            self._dynamic += alignment
        if self._dynamic > self._shared_end:
            self._gaps.append((self._shared_end, self._dynamic))
        self._symbols.update({one.name: self._dynamic for one in shared if not one.count})
        for scope in scopes:
            for variable in scope.variables.values():
                if variable.space == "local":
                    start = _aligned(self._local_end, variable.alignment)
                    self._symbols[variable.name] = start
                    self._local_end = start + variable.nbytes

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _instruction(self, statement: Statement) -> tuple[int, ...]:
        try:
            operands = [one for tokens in statement.operands for one in self._operand(tokens, statement.scope)]
            opcode = statement.opcode
        except KeyError as error:  # refused where it is run, as is what can't be emulated
            operands, opcode = [], f"{statement.opcode.partition('.')[0]} of the unknown name {error.args[0]}"
        guard = -1 if statement.guard is None else self._register(statement.guard, statement.scope)[0]
        first = len(self._operands)
        self._operands += operands
        return (self._text(opcode), statement.line, guard, int(statement.unless), first, len(operands))

    def _operand(self, tokens: list[str], scope: Scope) -> list[Operand]:
        """The operand, or two for an address with coordinates. Members of vectors go to the pool at once, before it."""
        if tokens[0] == "{":
            return [self._vector(_members(tokens), scope)]
        if tokens[0] == "[":
            return self._address(tokens[1:-1], scope)
        if "|" in tokens:
            at = tokens.index("|")
            return [self._vector([tokens[:at], tokens[at + 1 :]], scope)]
        if tokens[0] == "(":
            return []
        return [self._simple(tokens, scope)]

    def _vector(self, members: list[list[str]], scope: Scope) -> Operand:
        lowered = [self._simple(member, scope) for member in members]
        first = len(self._operands)
        self._operands += lowered
        return (_VECTOR, 0, 0, first, len(lowered), 0)

    def _simple(self, tokens: list[str], scope: Scope) -> Operand:
        if tokens == ["_"]:
            return (_SINK, 0, 0, 0, 0, 0)
        negated = tokens[0] == "!"
        if negated:
            tokens = tokens[1:]
        if len(tokens) == 1:
            name = tokens[0]
            if name.startswith("%") or number(name) is None:
                if (labels := self._label_list(name, scope)) is not None:
                    return labels
                if (target := _find(scope, "labels", name)) is not None:
                    return (_TARGET, 0, 0, target, 0, 0)
                if name not in self._symbols or self._declared(name, scope):
                    slot, bits = self._register(name, scope)
                    return (_REGISTER, bits, int(negated), slot, 0, 0)
        return (_CONSTANT, 64, int(negated), self._constant(self._sum(tokens)), 0, 0)

    def _label_list(self, name: str, scope: Scope) -> Operand | None:
        names = _find(scope, "label_lists", name)
        if names is None:
            return None
        first = len(self._operands)
        self._operands += [(_TARGET, 0, 0, _find(scope, "labels", one), 0, 0) for one in names]
        return (_VECTOR, 0, 0, first, len(names), 0)

    def _address(self, tokens: list[str], scope: Scope) -> list[Operand]:
        base, bits, rest = -1, 64, tokens
        coordinates: list[Operand] = []
        if "{" in tokens:
            at = tokens.index("{")
            coordinates = [self._vector(_members(tokens[at:]), scope)]
            rest = tokens[: at - 1]
        if rest[0] not in self._symbols and number(rest[0]) is None:
            base, bits = self._register(rest[0], scope)
            rest = rest[1:]
        return [(_ADDRESS, bits, 0, base, 0, self._sum(rest) if rest else 0), *coordinates]

    def _sum(self, tokens: list[str]) -> int:
        """A constant expression: literals and addresses of names, added and subtracted."""
        total, sign = 0, 1
        for token in tokens:
            if token in "+-":
                sign = -sign if token == "-" else sign
                continue
            value = self._symbols.get(token, number(token))
            if value is None:
                raise KeyError(token)
            total, sign = total + sign * value, 1
        return total

    def _constant(self, value: int) -> int:
        return self._constants.setdefault(value & _MASK, len(self._constants))

    def _declared(self, name: str, scope: Scope) -> bool:
        return _declaration(name, scope) is not None

    def _register(self, name: str, scope: Scope) -> tuple[int, int]:
        """The slot and the bits of a register that is declared in this scope or around it, or is a special one."""
        declaration = _declaration(name, scope)
        count = len(self._slots) + len(self._specials)
        if declaration is not None:
            where, bits = declaration
            return self._slots.setdefault((id(where), name), count), bits
        if name == "WARP_SZ":
            raise PtxSyntaxError("WARP_SZ is not emulated")
        if not name.startswith("%"):
            raise KeyError(name)
        return self._specials.setdefault(name, count), 64 if name.endswith("64") or name == "%globaltimer" else 32


def _global(module: Module) -> list[Variable]:
    return [one for one in module.variables.values() if one.space != "shared"]


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _members(tokens: list[str]) -> list[list[str]]:
    members: list[list[str]] = [[]]
    for token in tokens[1 : tokens.index("}")]:
        if token == ",":
            members.append([])
        else:
            members[-1].append(token)
    return members


def _find(scope: Scope | None, kind: str, name: str):
    while scope is not None:
        if name in getattr(scope, kind):
            return getattr(scope, kind)[name]
        scope = scope.outer
    return None


def _declaration(name: str, scope: Scope | None) -> tuple[Scope, int] | None:
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    while scope is not None:
        for register in scope.registers:
            if register.name == name and not register.count:
                return scope, register.bits
            if digits and register.name == stem and int(digits) < register.count:
                return scope, register.bits
        scope = scope.outer
    return None
