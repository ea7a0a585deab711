"""What the definitions contain, by name, as tests call it: that of an installation without a name of its own."""

from dagster import AssetKey

from recon_pipeline.definitions import defs

_graph = defs.get_repository_def().asset_graph

usage_events = _graph.get(AssetKey("usage_events")).assets_def
usage_aggregates = _graph.get(AssetKey("usage_aggregates")).assets_def
counter_drift = _graph.get(AssetKey("counter_drift")).assets_def
repaired_counters = _graph.get(AssetKey("repaired_counters")).assets_def
counters_match_event_sums = next(
    check for check in defs.asset_checks or () if check.check_key.name == "counters_match_event_sums"
)
reconcile_every_5_minutes = defs.resolve_schedule_def("reconcile_every_5_minutes")
audit_every_night = defs.resolve_schedule_def("audit_every_night")
alerts = defs.resolve_sensor_def("alerts")
