-- Stores the state of a subject that fails.
-- Index: the primary key of recon.alert_state.
-- Binds: details text, failing_since timestamptz, partitions text[], severity text, subject text, told_at timestamptz
insert into recon.alert_state (subject, severity, partitions, details, failing_since, told_at)
values (:subject, :severity, :partitions, :details, :failing_since, :told_at)
on conflict (subject) do update set
    severity = excluded.severity,
    partitions = excluded.partitions,
    details = excluded.details,
    told_at = excluded.told_at
