"""Custom queries are read before any server is asked: what is PromQL passes, what is none is refused with its place."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.kube import Manifest
from pinn_operator.core.api import parse_resource
from pinn_operator.core.wanted.promql import fault_of
from pinn_operator.core.wanted.queries import PLACEHOLDERS, filled_for_checking
from pinn_operator.core.wanted.spec import InvalidSpec, Spec


@pytest.mark.parametrize(
    "query",
    [
        "up",
        "-up",
        "+Inf",
        "vector(1) > 0",
        "5m",
        "0x1F + 1_000 + .5 + 1. + 1e-3",
        'max(abs(drift{revision="0a1b2c3d"}))',
        "histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m])))",
        "sum(rate(a[5m])) by (b) / sum without (c, d,) (rate(e[1h30m] offset 5m))",
        "quantile_over_time(0.5, x[5m]) / on (a) group_left (b) y",
        "a == bool b and on () c or d unless ignoring (e) group_right f",
        "max_over_time(rate(x[5m])[1h:30s] @ end() offset -1m)",
        "max_over_time(x[5m:])",
        "x @ start() + x @ 1609746000 + x @ -1.5",
        "{__name__=~\"a.*\", b!~'c', d!=`e`,}",
        '{"metric.with.dots", "label.with.dots"="x"}',
        'x{a="\\"}{[("}',
        "# said before\nup # and after\n",
        "sum + by + on_call",
        "job:requests:rate5m + :cpu:rate5m",
        "time() - node_boot_time_seconds",
        "count_values('version', build_info)",
        "rollup_rate(m[5m]) keep_metric_names default 0",  # VictoriaMetrics
        "WITH (x = 5) x + up",  # VictoriaMetrics
        "rate(x[5m] smoothed) + on (a) fill (0) y",
        "rate(x[5m + 1m])",
        "rate(x[step()])",
    ],
)
def test_what_is_promql_passes(query: str) -> None:
    assert fault_of(query) is None


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sum(rate(x[5m]", "is not PromQL: it ends, where ) is wanted"),
        ("sum(rate(x[5m)))", "is not PromQL: ')' stands at character 14, where ] is wanted"),
        ("up)", "is not PromQL: ')' stands at character 3, where it should end"),
        ("1 +", "is not PromQL: it ends, where an expression is wanted"),
        ("//", "is not PromQL: '/' stands at character 1, where an expression is wanted"),
        ("up down", "is not PromQL: 'down' stands at character 4, where it should end"),
        ("SELECT 1 FROM x", "is not PromQL: '1' stands at character 8, where it should end"),
        ('x{a="b}', "is not PromQL: the text that begins at character 5 has no end"),
        ("x{a=b}", "is not PromQL: 'b' stands at character 5, where a text in quotes is wanted"),
        ("x{a}", "is not PromQL: '}' stands at character 4, where =, !=, =~ or !~ is wanted"),
        ('x{a=="b"}', "is not PromQL: '==' stands at character 4, where =, !=, =~ or !~ is wanted"),
        ('x{a="b" c="d"}', "is not PromQL: 'c' stands at character 9, where , or } is wanted"),
        ("{}", "is not PromQL: {} names neither a metric nor a label"),
        ("sum by (a (x)", "is not PromQL: '(' stands at character 11, where ) is wanted"),
        ("sum()", "is not PromQL: ')' stands at character 5, where an expression is wanted"),
        ("rate(x[])", "is not PromQL: ']' stands at character 8, where a duration like 5m is wanted"),
        ("rate(x[$__interval])", "is not PromQL: unexpected '$' at character 8"),
        ("x offset", "is not PromQL: it ends, where a duration like 5m is wanted"),
        ("x @ yesterday", "is not PromQL: 'yesterday' stands at character 5, where a time, start() or end() is wanted"),
        ("x = 1", "is not PromQL: '=' stands at character 3, where it should end"),
        ("x && y", "is not PromQL: unexpected '&' at character 3"),
        ("5xx_total", "is not PromQL: unexpected '5' at character 1"),
        ("x[5m] > 1", "is not PromQL: an operator needs numbers on both sides, not a range of samples"),
        ("# nothing", "is not PromQL: it ends, where an expression is wanted"),
        ("(" * 100 + "x" + ")" * 100, "is not PromQL: more than 64 brackets are inside each other"),
        ('"up"', "must be PromQL that gives one number, not a text"),
        ("x[5m]", "must be PromQL that gives one number, not a range: put a function around it, like max_over_time(…)"),
    ],
)
def test_what_is_none_is_refused_with_the_place(query: str, fault: str) -> None:
    assert fault_of(query) == fault


@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            ["x", "(", ")", "{", "}", "[", "]", "5m", ":", '"a"', "=", "=~", "+", "-", "by", "sum", "@", ",", "offset"]
        )
    ).map(" ".join)
)
def test_no_text_makes_the_check_raise(query: str) -> None:
    assert fault_of(query) is None or len(fault_of(query) or "") < 200


@pytest.mark.parametrize(
    "part", ["(", "1^", "-", '"', "'\\", "1_", "5m", "#", '{a="b",', "abs(", "x[5m:", " ", "0x", "a", "\\"]
)
def test_the_longest_query_is_read_in_time_in_proportion_to_its_length(part: str) -> None:
    def seconds(length: int) -> float:
        query = (part * length)[:length]
        started = time.process_time()
        fault_of(query)
        return time.process_time() - started

    assert min(seconds(4096) for _ in range(3)) < 0.2


def resource(*queries: str) -> Manifest:
    gates = [{"name": f"g{i}", "query": query, "abort": {"above": "1"}} for i, query in enumerate(queries)]
    return {"metadata": {"name": "eu", "namespace": "pricing"}, "spec": {"image": "a", "analysis": {"gates": gates}}}


def test_a_resource_with_unreadable_promql_is_invalid_and_each_gate_is_named() -> None:
    spec = parse_resource(resource("up", "sum(up", "up)")).spec
    assert isinstance(spec, InvalidSpec)
    assert [str(error) for error in spec.errors] == [
        "spec.analysis.gates[g1].query: is not PromQL: it ends, where ) is wanted",
        "spec.analysis.gates[g2].query: is not PromQL: ')' stands at character 3, where it should end",
    ]


def test_placeholders_are_filled_in_before_a_query_is_read() -> None:
    query = 'rate(x{r="{{ canary }}|{{stable}}",n="{{ namespace }}/{{ name }}"}[{{ window }}])'
    assert isinstance(parse_resource(resource(query)).spec, Spec)


def test_every_placeholder_is_filled_in() -> None:
    query = " ".join(f"{{{{ {name} }}}} {{{{{name}}}}}" for name in PLACEHOLDERS)
    assert "{{" not in filled_for_checking(query)
