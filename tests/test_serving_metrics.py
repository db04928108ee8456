"""Figures in Prometheus' text format, as its own rules have them."""

from __future__ import annotations

from rlhf.serving import metrics
from rlhf.serving.metrics import Counter, Gauge, Histogram, Metrics


def test_a_histogram_counts_each_value_in_every_bucket_above_it() -> None:
    one = Histogram("x_seconds", "told", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        one.observe(value, arm="b")
    assert list(one.lines()) == [
        'x_seconds_bucket{arm="b",le="0.1"} 2',
        'x_seconds_bucket{arm="b",le="1"} 3',
        'x_seconds_bucket{arm="b",le="+Inf"} 4',
        'x_seconds_sum{arm="b"} 7.65',
        'x_seconds_count{arm="b"} 4',
    ]


def test_a_label_cannot_end_its_line() -> None:
    one = Counter("x_total", "told")
    one.add(2, arm='a"}\n\\')
    assert list(one.lines()) == ['x_total{arm="a\\"}\\n\\\\"} 2']


def test_labels_without_end_are_counted_together() -> None:
    one = Counter("x_total", "told")
    for number in range(metrics._MOST_SERIES + 5):
        one.add(user=str(number))
    lines = list(one.lines())
    assert len(lines) == metrics._MOST_SERIES + 1 and 'x_total{other="true"} 5' in lines


def test_every_metric_has_its_help_and_its_kind_once() -> None:
    made = Metrics()
    made.gauge("x_rows", "told", lambda: {(): 3.0})
    lines = made.text().splitlines()
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds)) and "x_rows 3" in lines
    assert list(Gauge("y", "told", lambda: {(("a", "b"),): 0.5}).lines()) == ['y{a="b"} 0.5']
