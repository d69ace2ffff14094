"""Conditions on metadata: a filter as callers write it, checked, and the SQL that finds the documents it lets through.

Of what a caller gives, only the names of declared fields, which match a pattern, stand in the text of the SQL.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metaindex.errors import FilterError

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$and", "$or")
MOST_COMPARISONS = 400  # their parameters stay below the 999 that SQLite took before 3.32
MOST_VALUES = 10_000
MOST_NESTED = 20
_SYMBOLS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LOWER, _UPPER = ("$gt", "$gte"), ("$lt", "$lte")
_PRESENT = ">= -9e999"  # all that is not NULL; SQLite seldom uses an index for IS NOT NULL
_LARGEST = (1 << 63) - 1
_OPERATOR = re.compile(r"\$[A-Za-z]+")  # what looks like one and is none is a mistake, and no field

Value = int | float | str | None


class Comparison(NamedTuple):
    """One operator on one field. A range that is not ``guarded`` has its other end in a neighbour, of the same class."""

    field: str
    operator: str
    operand: Value | tuple[Value, ...]
    guarded: bool = True


class Group(NamedTuple):
    """All of the parts, or any."""

    every: bool
    parts: tuple[Condition, ...]


Condition = Comparison | Group


class Query(NamedTuple):
    """``sql`` finds the sequence numbers of the documents that a filter lets through, or of those with metadata that it does
    not let through where ``excludes``. Its first parameter is the commit; ``values`` are the others."""

    sql: str
    values: tuple[Value, ...]
    excludes: bool


def parsed(filter: Mapping[Any, Any]) -> Group:
    """The conditions of a filter.

    Raises:
        FilterError: an operator, a field or an operand is none.
    """
    parts = tuple(_flat(_of(filter, 0, _Count()), True))
    return Group(True, parts)


def fields(condition: Condition) -> set[str]:
    """The names of the fields that a condition asks for."""
    if isinstance(condition, Comparison):
        return {condition.field}
    return set().union(*map(fields, condition.parts))


class _Count:
    comparisons = values = dicts = 0

    def add(self, comparisons: int = 0, values: int = 0, dicts: int = 0) -> None:
        self.comparisons += comparisons
        self.values += values
        self.dicts += dicts
        if max(self.comparisons, self.dicts) > MOST_COMPARISONS or self.values > MOST_VALUES:
            raise FilterError(
                f"filter: expected at most {MOST_COMPARISONS} comparisons and {MOST_VALUES:,} values in lists, got more; "
                f"filter by ids or by a mask instead"
            )


def _of(filter: Any, depth: int, count: _Count) -> Group:
    if not isinstance(filter, Mapping):
        raise FilterError(f"filter: expected a dict of fields, got {type(filter).__name__}")
    if depth > MOST_NESTED:
        raise FilterError(f"filter: expected $and and $or at most {MOST_NESTED} deep, got more; flatten it")
    parts: list[Condition] = []
    for key, value in filter.items():
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(f"filter: expected a list of at least one dict for {key}, got {_named(value)}")
            count.add(dicts=len(value))
            inner = (_of(one, depth + 1, count) for one in value)
            parts.append(Group(key == "$and", tuple(part for one in inner for part in _flat(one, key == "$and"))))
        else:
            parts.extend(_field(_field_name(key), value, count))
    return Group(True, tuple(parts))


def _flat(group: Group, every: bool) -> Iterator[Condition]:
    """The parts of a group that is to stand within one of kind ``every``: SQLite's parser bears few parentheses."""
    if len(group.parts) == 1:
        (part,) = group.parts
        if isinstance(part, Group):
            yield from _flat(part, every)
        else:
            yield part
    elif group.every == every:
        for part in group.parts:
            if isinstance(part, Group):
                yield from _flat(part, every)
            else:
                yield part
    else:
        yield group


def _field_name(key: Any) -> str:
    if not isinstance(key, str):
        raise FilterError(f"filter: expected names of fields, got {_named(key)}")
    if _OPERATOR.fullmatch(key):
        raise FilterError(f"filter: {_short(key)} can't stand in place of a field; operators are {', '.join(OPERATORS)}")
    if not key or '"' in key or "\0" in key or not _is_utf8(key):
        raise FilterError(f"filter: a field named {_short(key)} can't be filtered by")
    return str.__str__(key)


def _field(field: str, value: Any, count: _Count) -> Iterator[Comparison]:
    given = value if isinstance(value, Mapping) else {"$eq": value}
    if not given:
        raise FilterError(f"filter: expected a value or operators for {_short(field)}, got an empty dict")
    comparisons = [_comparison(field, operator, operand, count) for operator, operand in given.items()]
    lower = {_class(one) for one in comparisons if one.operator in _LOWER}
    upper = {_class(one) for one in comparisons if one.operator in _UPPER}
    for one in comparisons:
        other = upper if one.operator in _LOWER else lower
        yield one._replace(guarded=_class(one) not in other)


def _comparison(field: str, operator: Any, operand: Any, count: _Count) -> Comparison:
    where = f"{operator} of {_short(field)}"
    if operator not in OPERATORS[:-2]:
        raise FilterError(
            f"filter: unknown operator {_short(operator)} for {_short(field)}; expected {', '.join(OPERATORS[:-2])}"
        )
    if operator in ("$in", "$nin"):
        if not isinstance(operand, (list, tuple)):
            raise FilterError(f"filter: expected a list for {where}, got {_named(operand)}")
        count.add(comparisons=1, values=len(operand))
        return Comparison(field, operator, tuple(_value(one, where) for one in operand))
    count.add(comparisons=1)
    checked = _value(operand, where)
    if checked is None and operator in _SYMBOLS:
        raise FilterError(f"filter: expected text or a number for {where}, got None")
    return Comparison(field, operator, checked)


def _value(value: Any, where: str) -> Value:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, str):
        if "\0" in value or not _is_utf8(value):
            raise FilterError(f"filter: expected text without NUL that UTF-8 can hold for {where}, got {_short(value)}")
        return str.__str__(value)
    if isinstance(value, int):
        try:
            str(int(value))
        except ValueError:
            raise FilterError(f"filter: the number for {where} has too many digits") from None
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError(f"filter: expected a finite number for {where}, got {value}")
        return float(value)
    raise FilterError(f"filter: expected text, a number, True, False or None for {where}, got {_named(value)}")


def _class(comparison: Comparison) -> type:
    return str if isinstance(comparison.operand, str) else int


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def _named(value: Any) -> str:
    if isinstance(value, (list, tuple)) and not value:
        return "an empty list"
    return "a dict" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def expression(path: str) -> str:
    """The SQL for the value at a JSON ``path``, itself SQL: NULL where it is missing or null, and for a list or an object a
    blob, which equals no number and no text and sorts behind both."""
    return f"CASE WHEN json_type(fields, {path}) IN ('array', 'object') THEN x'' ELSE json_extract(fields, {path}) END"


def literal(name: str) -> str:
    """The path of a declared field as SQL: its name is letters, digits and underscores."""
    return f"'$.\"{name}\"'"


def query(condition: Condition, declared: Sequence[str]) -> Query:
    """The SQL that answers a condition, in terms that the indexes of the ``declared`` fields serve."""
    excludes = _lets_empty_through(condition)
    compiler = _Compiler(frozenset(declared))
    where = compiler.condition(condition, not excludes)
    sql = f"SELECT sequence FROM metadata WHERE {where} AND created <= ?1 AND (removed IS NULL OR removed > ?1)"
    return Query(sql, tuple(compiler.values), excludes)


def _lets_empty_through(condition: Condition) -> bool:
    """Whether a document without metadata meets a condition."""
    if isinstance(condition, Group):
        return (all if condition.every else any)(map(_lets_empty_through, condition.parts))
    operator, operand = condition.operator, condition.operand
    if operator in ("$in", "$nin"):
        assert isinstance(operand, tuple)
        return (None in operand) == (operator == "$in")
    if operator in ("$eq", "$ne"):
        return (operand is None) == (operator == "$eq")
    return False


class _Compiler:
    """Negations are carried down to the comparisons: there they are exact, and what is not negated may use an index."""

    def __init__(self, declared: frozenset[str]) -> None:
        self.values: list[Value] = []
        self._declared = declared
        self._paths: dict[str, str] = {}

    def condition(self, condition: Condition, holds: bool) -> str:
        if isinstance(condition, Comparison):
            return self._comparison(condition, holds)
        every = condition.every == holds
        parts = [self.condition(part, holds) for part in condition.parts]
        return f"({(' AND ' if every else ' OR ').join(parts)})" if parts else str(int(every))

    def _comparison(self, comparison: Comparison, holds: bool) -> str:
        field, operator, operand, guarded = comparison
        value = self._field(field)
        if operator in ("$ne", "$nin"):
            operator, holds = {"$ne": "$eq", "$nin": "$in"}[operator], not holds
        if operator == "$in":
            assert isinstance(operand, tuple)
            present = [one for one in operand if one is not None]
            found = f"{value} IN (SELECT value FROM json_each({self._bind(json.dumps(present, ensure_ascii=False))}))"
            if None in operand:
                return f"({found} OR {value} IS NULL)" if holds else f"(NOT {found} AND {value} {_PRESENT})"
        elif operand is None:
            return f"{value} IS NULL" if holds else f"{value} {_PRESENT}"
        else:
            assert not isinstance(operand, tuple)
            found = f"{value} {_SYMBOLS.get(operator, '=')} {self._operand(operand)}"
            if guarded and (guard := _guard(operator, operand)):
                found = f"{found} AND {value} {guard}"
        return f"({found})" if holds else f"({found}) IS NOT TRUE"

    def _field(self, name: str) -> str:
        if name in self._declared:
            return expression(literal(name))
        if name not in self._paths:
            self._paths[name] = self._bind(f"$.{json.dumps(name, ensure_ascii=False)}")
        return expression(self._paths[name])

    def _operand(self, operand: Value) -> str:
        if isinstance(operand, float) or (isinstance(operand, int) and not ~_LARGEST <= operand <= _LARGEST):
            # Read from text as the document's number is, so that equal ones are equal, however exact the reading.
            return f"json_extract({self._bind(json.dumps(operand))}, '$')"
        return self._bind(operand)

    def _bind(self, value: Value) -> str:
        self.values.append(value)
        return f"?{len(self.values) + 1}"


def _guard(operator: str, operand: Value) -> str | None:
    """What keeps a range within the class of its operand: numbers sort before text, text before blobs."""
    if operator in _LOWER:
        return "< x''" if isinstance(operand, str) else "< ''"
    if operator in _UPPER and isinstance(operand, str):
        return ">= ''"
    return None
