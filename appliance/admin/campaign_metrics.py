"""The metrics of campaigns, read at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from appliance.campaigns.stats import CampaignStats


def campaign_metrics(stats: CampaignStats) -> Iterator[Metric]:
    """What the campaigns of this box do."""
    for name, text, label, counts in (
        ("attempts", "Calls of campaigns that are over", "disposition", stats.attempts),
        ("leads_done", "Leads that are done", "disposition", stats.leads_done),
        ("held_back", "Leads that were due and not called", "cause", stats.held_back),
    ):
        counter = CounterMetricFamily(f"appliance_campaign_{name}", text, labels=["campaign", label])
        for (campaign, value), count in sorted(counts.items()):
            counter.add_metric([campaign, value], count)
        yield counter
    for name, text, values in (
        ("calls_active", "Calls of a campaign that go on now, on this box", stats.calls),
        (
            "abandoned_percent",
            "Of the last calls that people answered",
            stats.abandoned_percent,
        ),
    ):
        gauge = GaugeMetricFamily(f"appliance_campaign_{name}", text, labels=["campaign"])
        for campaign, now in sorted(values.items()):
            gauge.add_metric([campaign], float(now))
        yield gauge
    yield CounterMetricFamily(
        "appliance_campaign_taken_back", "Leads whose box, or call, was gone", value=stats.taken_back
    )
    yield GaugeMetricFamily(
        "appliance_campaign_unwritten", "Ends of calls that are not in the database yet", value=stats.unwritten
    )
    yield GaugeMetricFamily(
        "appliance_campaign_halted", "1 while the database does not answer and nobody is called",
        value=1.0 if stats.problem else 0.0,
    )  # fmt: skip
    breakers = GaugeMetricFamily("appliance_campaign_breaker_open", "Trunks that are left alone", labels=["trunk"])
    for trunk in sorted(stats.open_breakers):
        breakers.add_metric([trunk], 1.0)
    yield breakers
