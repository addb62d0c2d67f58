"""Whether a text is PromQL, without asking a server.

A reader of the grammar of Prometheus 3 (promql/parser/generated_parser.y, lex.go), in one pass and of bounded depth.
It knows the shape of an expression and nothing of its meaning: functions may have any name and any arguments, and the
additions of VictoriaMetrics that keep that shape pass, because the server that is asked knows best. A query that passes
may still be refused by the server; one that does not pass would be refused by each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

DEPTH_LIMIT: Final = 64
"""Brackets and signs inside each other."""


class NotPromQL(Exception):
    """The text is no PromQL; the message says what is wrong, and where."""


class Kind(Enum):
    """What an expression gives, as far as its shape tells."""

    NUMBERS = "numbers"
    RANGE = "a range of samples"
    TEXT = "a text"


_AGGREGATIONS: Final = frozenset(
    {
        "avg", "bottomk", "count", "count_values", "group", "limit_ratio", "limitk", "max", "min", "quantile", "stddev",
        "stdvar", "sum", "topk",
    }
)  # fmt: skip
_WORD_OPERATORS: Final = frozenset({"and", "or", "unless", "atan2", "default", "if", "ifnot"})
_SIGNS: Final = frozenset({"+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", ">/", "</"})
_GROUPINGS: Final = frozenset({"by", "without"})
_AFTER_SELECTOR: Final = frozenset({"anchored", "smoothed", "keep_metric_names"})
_MATCHERS: Final = frozenset({"=", "!=", "=~", "!~"})
_DURATION: Final = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhdwyi]))+"
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>(?:\s|\#[^\n]*)+)
  | (?P<duration>{_DURATION})(?![A-Za-z0-9_])
  | (?P<number>0[xX][0-9a-fA-F_]+ | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
  | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:.]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*`)
  | (?P<sign>==|!=|>=|<=|=~|!~|>/|</|[-+*/%^<>=@(){{}}\[\],:])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


@lru_cache(maxsize=512)
def kind_of(query: str) -> Kind:
    """What a query gives. Raises NotPromQL. Takes time in proportion to its length."""
    reader = _Reader(_tokens(query))
    if reader.peek().text.lower() == "with":
        # Templates of VictoriaMetrics: another language around PromQL.
        return Kind.NUMBERS
    kind = reader.expression()
    reader.expect_end()
    return kind


def fault_of(query: str) -> str | None:
    """Why a query cannot give one number; None if it may."""
    try:
        kind = kind_of(query)
    except NotPromQL as error:
        return f"is not PromQL: {error}"
    if kind is Kind.TEXT:
        return "must be PromQL that gives one number, not a text"
    if kind is Kind.RANGE:
        return "must be PromQL that gives one number, not a range: put a function around it, like max_over_time(…)"
    return None


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    place, ranges = 0, 0
    while place < len(query):
        if ranges and query[place] == ":":
            # Elsewhere a name may begin with it: `:cpu:rate5m`.
            found.append(_Token("sign", ":", place))
            place += 1
            continue
        match = _TOKEN.match(query, place)
        if match is None:
            letter = query[place]
            if letter in "\"'`":
                raise NotPromQL(f"the text that begins at character {place + 1} has no end")
            raise NotPromQL(f"unexpected {letter!r} at character {place + 1}")
        if match.lastgroup != "space":
            found.append(_Token(str(match.lastgroup), match[0], place))
        ranges += {"[": 1, "]": -1}.get(match[0], 0)
        place = match.end()
    found.append(_Token("end", "", len(query)))
    return found


class _Reader:
    """Reads tokens from left to right. Each method reads one part of the grammar and raises NotPromQL."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._depth = 0

    def peek(self, ahead: int = 0) -> _Token:
        """The next token, or a later one."""
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    def expect_end(self) -> None:
        """Nothing may follow."""
        if self.peek().kind != "end":
            raise self._unexpected("")

    def expression(self) -> Kind:
        """Operands with operators between them."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise NotPromQL(f"more than {DEPTH_LIMIT} brackets are inside each other")
        kind = self._operand()
        while self._operator():
            right = self._operand()
            for side in (kind, right):
                if side is not Kind.NUMBERS:
                    raise NotPromQL(f"an operator needs numbers on both sides, not {side.value}")
        self._depth -= 1
        return kind

    def _operator(self) -> bool:
        token = self.peek()
        if token.text not in _SIGNS and token.text.lower() not in _WORD_OPERATORS:
            return False
        if token.kind == "string":
            return False
        self._index += 1
        self._word("bool")
        if self._word("on") or self._word("ignoring"):
            self._labels()
            if (self._word("group_left") or self._word("group_right")) and self.peek().text == "(":
                self._labels()
        while self._word("fill") or self._word("fill_left") or self._word("fill_right"):
            self._sign("(")
            self.expression()
            self._sign(")")
        return True

    def _operand(self) -> Kind:
        signs = 0
        while self.peek().text in ("+", "-"):
            signs += 1
            self._index += 1
        kind = self._followed(self._primary())
        if signs and kind is not Kind.NUMBERS:
            raise NotPromQL(f"a sign needs numbers, not {kind.value}")
        return kind

    def _primary(self) -> Kind:
        token = self.peek()
        if token.kind in ("number", "duration"):
            self._index += 1
            return Kind.NUMBERS
        if token.kind == "string":
            self._index += 1
            return Kind.TEXT
        if token.text == "(":
            self._index += 1
            kind = self.expression()
            self._sign(")")
            return kind
        if token.text == "{" and token.kind == "sign":
            if self.peek(1).text == "}":
                raise NotPromQL("{} names neither a metric nor a label")
            self._matchers()
            return Kind.NUMBERS
        if token.kind != "word":
            raise self._unexpected("an expression")
        return self._named()

    def _named(self) -> Kind:
        """What begins with a word: a number, an aggregation, a function or a metric."""
        token = self.peek()
        self._index += 1
        lower = token.text.lower()
        if lower in _AGGREGATIONS and (self.peek().text == "(" or self.peek().text.lower() in _GROUPINGS):
            grouped = self._grouping()
            self._arguments(least=1)
            if not grouped:
                self._grouping()
            return Kind.NUMBERS
        if self.peek().text == "(":
            self._arguments(least=0)
            return Kind.NUMBERS
        if lower in ("inf", "nan"):
            return Kind.NUMBERS
        if self.peek().text == "{":
            self._matchers()
        return Kind.NUMBERS

    def _grouping(self) -> bool:
        if not (self._word("by") or self._word("without")):
            return False
        self._labels()
        return True

    def _arguments(self, *, least: int) -> None:
        self._sign("(")
        count = 0
        while self.peek().text != ")":
            self.expression()
            count += 1
            if self.peek().text != ",":
                break
            self._index += 1
        if count < least:
            raise self._unexpected("an expression")
        self._sign(")")

    def _followed(self, kind: Kind) -> Kind:
        """What may follow an operand: ranges, `offset` and `@`, in any order."""
        while True:
            if self.peek().text == "[" and self.peek().kind == "sign":
                if kind is not Kind.NUMBERS:
                    raise NotPromQL(f"{kind.value} has no range")
                kind = self._range()
            elif self._word("offset"):
                if self.peek().text in ("+", "-"):
                    self._index += 1
                self._length("a duration like 5m")
            elif self.peek().text == "@" and self.peek().kind == "sign":
                self._index += 1
                self._moment()
            elif self.peek().text.lower() in _AFTER_SELECTOR:
                self._index += 1
            elif self._word("limit"):
                self._length("a number")
            else:
                return kind

    def _range(self) -> Kind:
        self._sign("[")
        if self.peek().text != ":":
            self._length("a duration like 5m")
        if self.peek().text != ":":
            self._sign("]")
            return Kind.RANGE
        self._index += 1
        if self.peek().text != "]":
            self._length("a duration like 5m")
        self._sign("]")
        return Kind.RANGE

    def _length(self, wanted: str) -> None:
        """A duration: a literal, or an expression of Prometheus 3, which is a function or stands in brackets."""
        token = self.peek()
        if token.kind in ("number", "duration"):
            self._index += 1
            while self.peek().text in ("+", "-", "*", "/", "%", "^") and self.peek(1).kind in ("number", "duration"):
                self._index += 2
            return
        if token.text == "(" or (token.kind == "word" and self.peek(1).text == "("):
            self._primary()
            return
        raise self._unexpected(wanted)

    def _moment(self) -> None:
        if self.peek().text in ("+", "-"):
            self._index += 1
        token = self.peek()
        if token.kind in ("number", "duration"):
            self._index += 1
        elif token.text in ("start", "end") and self.peek(1).text == "(":
            self._index += 1
            self._sign("(")
            self._sign(")")
        else:
            raise self._unexpected("a time, start() or end()")

    def _matchers(self) -> None:
        self._sign("{")
        while self.peek().text != "}":
            token = self.peek()
            if token.kind not in ("word", "string"):
                raise self._unexpected('a label like revision="a"')
            self._index += 1
            following = self.peek()
            if following.kind == "sign" and following.text in _MATCHERS:
                self._index += 1
                if self.peek().kind != "string":
                    raise self._unexpected("a text in quotes")
                self._index += 1
            elif token.kind == "word":
                raise self._unexpected("=, !=, =~ or !~")
            if self.peek().text == "," or self.peek().text.lower() == "or":
                self._index += 1
            elif self.peek().text != "}":
                raise self._unexpected(", or }")
        self._sign("}")

    def _labels(self) -> None:
        self._sign("(")
        while self.peek().text != ")":
            if self.peek().kind not in ("word", "string"):
                raise self._unexpected("a label")
            self._index += 1
            if self.peek().text != ",":
                break
            self._index += 1
        self._sign(")")

    def _word(self, word: str) -> bool:
        token = self.peek()
        if token.kind != "word" or token.text.lower() != word:
            return False
        self._index += 1
        return True

    def _sign(self, sign: str) -> None:
        token = self.peek()
        if token.kind != "sign" or token.text != sign:
            raise self._unexpected(sign)
        self._index += 1

    def _unexpected(self, wanted: str) -> NotPromQL:
        token = self.peek()
        found = "it ends" if token.kind == "end" else f"{token.text[:32]!r} stands at character {token.place + 1}"
        return NotPromQL(f"{found}, where {wanted} is wanted" if wanted else f"{found}, where it should end")
