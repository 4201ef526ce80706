"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mythos_runtime.server.engine_loop import Stats
from mythos_runtime.server.tickets import Ticket
from mythos_runtime.shards.group import Shards

_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_NEXT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Observes the engine's loop (`engine_loop.Observer`) in a registry of its own."""

    def __init__(self, most_loops: int) -> None:
        self.registry = registry = CollectorRegistry()
        self._tokens = Counter("mythos_generated_tokens", "Tokens generated", registry=registry)
        self._prompt = Counter("mythos_prompt_tokens", "Prompt tokens of requests that got a token", registry=registry)
        self._ended = Counter("mythos_requests", "Requests by how they ended", ["reason"], registry=registry)
        self._depth = Histogram(
            "mythos_token_depth", "Loops behind a token", buckets=_loops(most_loops), registry=registry
        )
        self._first = Histogram(
            "mythos_time_to_first_token_seconds", "From arrival to the first token", buckets=_FIRST, registry=registry
        )
        self._next = Histogram(
            "mythos_time_per_token_seconds", "From one token to the next", buckets=_NEXT, registry=registry
        )
        self._whole = Histogram("mythos_request_seconds", "From arrival to the end", buckets=_FIRST, registry=registry)

    def follow(self, stats: Callable[[], Stats], shards: Shards | None = None) -> None:
        """Show the engine's own figures too, as they are when somebody asks; and its shards'."""
        self.registry.register(_EngineFigures(stats, shards))

    def token(self, ticket: Ticket, depth: int, now: float) -> None:
        self._tokens.inc()
        self._depth.observe(depth)
        if ticket.sent == 1:
            self._first.observe(now - ticket.arrived)
            self._prompt.inc(len(ticket.request.prompt))
        else:
            self._next.observe(now - ticket.last)

    def ended(self, ticket: Ticket, reason: str, now: float) -> None:
        self._ended.labels(reason).inc()
        self._whole.observe(now - ticket.arrived)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)


class _EngineFigures(Collector):
    def __init__(self, stats: Callable[[], Stats], shards: Shards | None) -> None:
        self._stats, self._shards = stats, shards

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        gauges = {
            "mythos_running": ("Requests that the engine runs", stats.running),
            "mythos_waiting": ("Requests that wait for it", stats.waiting),
            "mythos_pages": ("Pages of the caches", stats.pages),
            "mythos_pages_free": ("Pages that nobody holds", stats.pages_free),
            "mythos_pages_running": ("Pages that running requests hold", stats.pages_running),
            "mythos_states": ("States for positions that lag", stats.states),
            "mythos_states_free": ("States that nobody holds", stats.states_free),
            "mythos_prefixes": ("Ended requests kept for those that begin alike", stats.prefixes),
            "mythos_late_share": (
                "Share of the step's rows that had halted before and were needed by a deeper one",
                stats.late / stats.rows if stats.rows else 0.0,
            ),
        }
        if self._shards is not None:
            gauges["mythos_shards"] = ("Shards that the experts are in", self._shards.count)
            gauges["mythos_shards_ready"] = ("Shards that are there", self._shards.ready)
        for name, (meaning, value) in gauges.items():
            yield GaugeMetricFamily(name, meaning, value)
        counters = {
            "mythos_steps": ("Loops of rows that ran together", stats.steps),
            "mythos_rows": ("Their rows", stats.rows),
            "mythos_late_rows": ("Rows that had halted before", stats.late),
            "mythos_drafted_tokens": ("Tokens that were drafted", stats.drafted),
            "mythos_accepted_tokens": ("Drafts that were right", stats.accepted),
            "mythos_reused_tokens": ("Prompt tokens whose cache entries were there already", stats.reused),
            "mythos_engine_restarts": ("Engines opened anew after a tick that failed", stats.restarts),
        }
        if self._shards is not None:
            counters["mythos_shard_restarts"] = ("Shards started anew after they were lost", self._shards.restarts)
        for name, (meaning, value) in counters.items():
            yield CounterMetricFamily(name, meaning, value)


def _loops(most: int) -> list[float]:
    """Each depth by itself up to 16, then about a tenth further each time."""
    bounds, bound = [], 1
    while bound < most:
        bounds.append(float(bound))
        bound = bound + 1 if bound < 16 else bound + max(1, bound // 10)
    return [*bounds, float(most)]
