"""Every SQL text, with where it looks.  Names are qualified: search_path is pinned anyway."""

from typing import Final

OBSERVE: Final = """
SELECT json_build_object(
  'started', pg_postmaster_start_time()::text,
  'loaded', extract(epoch FROM pg_conf_load_time())::float8,
  'recovery', r.recovery,
  'system', (SELECT system_identifier::text FROM pg_control_system()),
  'major', current_setting('server_version_num')::int / 10000,
  'position', CASE WHEN r.recovery
     THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text
     ELSE pg_current_wal_flush_lsn()::text END,
  'replayed', CASE WHEN r.recovery THEN pg_last_wal_replay_lsn()::text
     ELSE pg_current_wal_flush_lsn()::text END,
  'timeline', CASE WHEN r.recovery
     THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                   (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings
     WHERE name IN ('primary_conninfo', 'synchronous_standby_names')),
  'segment', pg_size_bytes(current_setting('wal_segment_size')),
  'receiver', (SELECT json_build_object('status', status, 'host', sender_host,
       'flushed', flushed_lsn::text, 'timeline', received_tli,
       'heard_ago', extract(epoch FROM clock_timestamp() - last_msg_receipt_time)::float8)
     FROM pg_stat_wal_receiver),
  'receiving', EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
  'replicas', (SELECT json_agg(json_build_object('name', application_name, 'state', state,
       'sync_state', sync_state, 'sent', sent_lsn::text, 'flushed', flush_lsn::text,
       'replayed', replay_lsn::text, 'reply', reply_time::text)) FROM pg_stat_replication),
  'slots', (SELECT json_agg(json_build_object('name', slot_name, 'active', active,
       'wal_status', wal_status)) FROM pg_replication_slots WHERE slot_type = 'physical'
       AND NOT temporary),
  'pending_restart', (SELECT json_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart)
)::text
FROM (SELECT pg_is_in_recovery() AS recovery) AS r
"""
"""pg_stat_wal_receiver, pg_stat_replication, pg_replication_slots, pg_settings, control file.

A primary's timeline comes from the WAL it writes: the control file follows at the next
checkpoint only.
"""

LOWERED_COMMIT: Final = """
SELECT coalesce(d.datname, '*') || '/' || coalesce(r.rolname, '*')
FROM pg_db_role_setting s
LEFT JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)
WHERE c.setting ILIKE 'synchronous_commit=%'
  AND lower(split_part(c.setting, '=', 2)) NOT IN ('on', 'true', 'yes', '1', 'remote_apply')
UNION ALL
SELECT regexp_replace(sourcefile, '.*/', '') FROM pg_file_settings
WHERE name = 'synchronous_commit' AND applied
  AND lower(setting) NOT IN ('on', 'true', 'yes', '1', 'remote_apply')
"""
"""Our own connections have a value of their own, so the files are asked, not pg_settings."""

EFFECTIVE: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
FILE_ERRORS: Final = """
SELECT regexp_replace(sourcefile, '.*/', ''), sourceline, coalesce(name, ''), error
FROM pg_file_settings WHERE error IS NOT NULL ORDER BY sourcefile, sourceline
"""
"""What keeps a file from being taken up, also what only waits for a restart.  With a name that it
does not know PostgreSQL takes up nothing of all its files at a reload (guc-file.l)."""
WAITING: Final = "SELECT name FROM pg_settings WHERE pending_restart"
SETTING: Final = "SELECT setting FROM pg_settings WHERE name = %s"
FLUSHED: Final = "SELECT pg_current_wal_flush_lsn()::text"
STARTED: Final = "SELECT pg_postmaster_start_time()::text"
RELOAD: Final = "SELECT pg_reload_conf()"
PROBE: Final = "SELECT pg_logical_emit_message(true, 'flightmode', '')"
"""A transaction with a record of WAL and nothing else: its commit waits for the disk (xact.c)."""
PROMOTE: Final = "SELECT pg_promote(false)"
CHECKPOINT: Final = "CHECKPOINT"

TIMELINES: Final = """
SELECT (SELECT timeline_id FROM pg_control_checkpoint()),
  ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
"""
"""The control file's timeline and the one being written."""

ROLES: Final = """
SELECT rolname, coalesce(shobj_description(oid, 'pg_authid'), '')
FROM pg_roles WHERE rolname = ANY(%s)
"""
SLOTS: Final = """
SELECT slot_name, active, wal_status FROM pg_replication_slots
WHERE slot_type = 'physical' AND NOT temporary
"""
CREATE_SLOT: Final = "SELECT pg_create_physical_replication_slot(%s, true)"
DROP_SLOT: Final = "SELECT pg_drop_replication_slot(%s)"

REWIND_GRANTS: Final = (
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO flightmode_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO flightmode_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO flightmode_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)"
    " TO flightmode_rewind",
)
"""What pg_rewind needs of a role that is no superuser (manual, pg_rewind, Notes)."""
MONITOR_GRANT: Final = "GRANT pg_monitor TO flightmode_monitor"

AT_WORK: Final = """
SELECT EXISTS (
  SELECT FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND state <> 'idle' AND application_name <> 'flightmode'
)
"""
"""Whether a client has a statement under way, or a transaction open."""

STATEMENTS_END: Final = "SET statement_timeout = '4s'"
STATEMENTS_LAST: Final = "SET statement_timeout = 0"
"""Somebody's open transaction may hold the row of one of our roles (pg_authid)."""
