//! What is checked of the two servers, the slot and the publication.

use super::{Findings, SourceSide};
use crate::conninfo::{Conninfo, SslMode};
use crate::facts::{Slot, SourceServer, TargetServer};
use crate::settings::{STREAM, Settings};
use crate::sql::ident;
use crate::standbys;

/// Oldest version that is taken at all, oldest that is supported, first one that is not tested.
const VERSIONS: (u32, u32, u32) = (130_000, 140_000, 190_000);

/// Age at which a write transaction is worth a warning: slot creation waits for it.
const LONG_WRITE_SECONDS: i64 = 60;

/// WAL held by a slot without a reader, above which there is a warning.
const HELD_BYTES: i64 = 1 << 30;

/// The source server, the slot and the publication.
pub(super) fn source(findings: &mut Findings, settings: &Settings, side: &SourceSide) {
    let server = &side.server;
    version(findings, "source", server.version, &server.version_text);
    role(findings, server);
    capacity(findings, server, side.slot.as_ref());
    disk(findings, server);
    waiting(findings, server);
    standbys(findings, server, &settings.source.application_name(STREAM));
    super::failover::source(findings, server, settings.source.failover);
    if let Some(slot) = &side.slot {
        check_slot(findings, slot, &server.database);
    }
    findings
        .note(
            "source",
            "releases before November 2026 can be damaged by copies that read too early",
        )
        .detail(
            "With them, reading at once under a slot's exported snapshot can mark committed rows as aborted. \
             cdc waits until that cannot happen; other tools that copy right after slot creation do not.",
        )
        .fix("Update the source to its newest minor release.");
}

fn version(findings: &mut Findings, side: &str, version: u32, text: &str) {
    let (oldest, supported, untested) = VERSIONS;
    if version < oldest {
        findings
            .error(side, format!("PostgreSQL {text} is too old"))
            .fix("Use PostgreSQL 14 or later.");
    } else if version < supported {
        findings.note(
            side,
            format!("PostgreSQL {text} is not supported any more, though it works so far"),
        );
    } else if version >= untested {
        findings.note(
            side,
            format!("PostgreSQL {text} is newer than what cdc was tested with (14 to 18)"),
        );
    }
}

fn role(findings: &mut Findings, server: &SourceServer) {
    if server.wal_level != "logical" {
        findings
            .error(
                "source",
                format!(
                    "wal_level is \"{}\", it must be \"logical\"",
                    server.wal_level
                ),
            )
            .fix(
                "ALTER SYSTEM SET wal_level = 'logical'; then restart the server. \
                 (RDS: rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on.)",
            );
    }
    if server.in_recovery {
        findings
            .error("source", "the server is a standby")
            .detail("Slots and exact copies need the primary.")
            .fix("Name the primary, or several hosts with target_session_attrs=read-write.");
    }
    if !server.may_replicate {
        let user = ident(&server.user);
        findings
            .error(
                "source",
                format!("role \"{}\" may not replicate", server.user),
            )
            .fix(format!(
                "ALTER ROLE {user} REPLICATION; (RDS: GRANT rds_replication TO {user};)"
            ));
    }
}

/// The stream needs one slot and one walsender, a running copy one more of each.
fn capacity(findings: &mut Findings, server: &SourceServer, slot: Option<&Slot>) {
    let kinds = [
        (
            "max_replication_slots",
            "replication slot",
            server.slots,
            slot.is_some(),
        ),
        (
            "max_wal_senders",
            "walsender",
            server.wal_senders,
            slot.is_some_and(|slot| slot.active_pid.is_some()),
        ),
    ];
    for (setting, word, (used, most), have_ours) in kinds {
        let free = most.saturating_sub(used);
        let needed = if have_ours { 0 } else { 1 };
        let more = format!("Raise {setting} (now {most}, {used} in use) and restart the server.");
        if free < needed {
            findings
                .error("source", format!("no {word} is free"))
                .fix(more);
        } else if free < needed + 1 {
            findings
                .warning("source", format!("no second {word} is free"))
                .detail("Each resync takes one more for its time; it is put off until one is free.")
                .fix(more);
        }
    }
}

fn disk(findings: &mut Findings, server: &SourceServer) {
    if server.max_slot_wal_keep_size_mb < 0 {
        findings
            .warning("source", "max_slot_wal_keep_size is without limit")
            .detail(
                "If cdc is away for long, its slot holds WAL until the source's disk is full. \
                 With a limit the slot is lost instead, and cdc heals by itself.",
            )
            .fix("ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();");
    }
    if server.idle_slot_timeout_seconds > 0 {
        findings.note(
            "source",
            format!(
                "a slot that nobody reads for {} s is invalidated (idle_replication_slot_timeout); cdc then heals by itself, unless a copy takes longer than that",
                server.idle_slot_timeout_seconds
            ),
        );
    }
}

/// What slot creation, and so the first copy and every resync, has to wait for.
fn waiting(findings: &mut Findings, server: &SourceServer) {
    if let Some(seconds) = server
        .oldest_write_seconds
        .filter(|seconds| *seconds >= LONG_WRITE_SECONDS)
    {
        findings
            .warning("source", format!("a transaction that has written is open for {seconds} s"))
            .detail("Slot creation, and so every copy, waits for all write transactions of the cluster.")
            .fix("SELECT pid, usename, datname, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;");
    }
    if server.prepared_transactions > 0 {
        findings
            .warning("source", format!("{} prepared transactions are open", server.prepared_transactions))
            .detail("Slot creation, and so every copy, waits for them.")
            .fix("SELECT * FROM pg_prepared_xacts; and COMMIT PREPARED or ROLLBACK PREPARED what was forgotten.");
    }
}

/// Whether commits wait for others, and for `cdc` itself.
fn standbys(findings: &mut Findings, server: &SourceServer, name: &str) {
    let setting = server.synchronous_standby_names.trim();
    if setting.is_empty() {
        return;
    }
    findings.note(
        "source",
        "commits wait for synchronous standbys; while one hangs, copies are put off",
    );
    if standbys::names(setting, name) {
        findings
            .warning(
                "source",
                format!("commits wait for cdc (synchronous_standby_names = {setting})"),
            )
            .detail(
                "A commit may return that no other server has: cdc keeps lookups, it cannot stand in for a lost primary. \
                 cdc acknowledges at once, and steps aside while its target takes longer than 2 s; commits then wait for the other standbys.",
            )
            .fix(
                "Name the real standbys by their application_name: \
                 ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (...)'; SELECT pg_reload_conf();",
            );
    }
}

fn check_slot(findings: &mut Findings, slot: &Slot, database: &str) {
    let subject = format!("slot \"{}\"", slot.name);
    let another = "Choose another name (source.slot), or drop the slot if nobody needs it.";
    match slot.plugin.as_deref() {
        None => {
            findings
                .error(&subject, "the slot is physical, not logical")
                .fix(another);
            return;
        }
        Some("pgoutput") => {}
        Some(plugin) => {
            findings
                .error(
                    &subject,
                    format!("the slot uses plugin \"{plugin}\", not pgoutput"),
                )
                .fix(another);
        }
    }
    if let Some(other) = slot.database.as_deref().filter(|other| *other != database) {
        findings
            .error(
                &subject,
                format!("the slot belongs to database \"{other}\""),
            )
            .fix(another);
    }
    if slot.wal_status.as_deref() == Some("lost") || slot.invalidation_reason.is_some() {
        let reason = slot.invalidation_reason.as_deref().unwrap_or("wal_removed");
        findings
            .warning(&subject, format!("the slot is lost ({reason})"))
            .detail("cdc run makes a new one and copies everything exactly; readers keep the old rows until then.");
    } else if slot.wal_status.as_deref() == Some("unreserved") {
        findings
            .warning(
                &subject,
                "the slot is about to be lost (max_slot_wal_keep_size)",
            )
            .fix("Start cdc, or run `cdc status` to see why it is stuck.");
    }
    match (slot.active_pid, slot.held_bytes) {
        (Some(pid), _) => {
            findings.note(&subject, format!("the slot is in use by process {pid}"));
        }
        (None, Some(bytes)) if bytes >= HELD_BYTES => {
            findings
                .warning(
                    &subject,
                    format!(
                        "nobody reads the slot, and it holds {} MB of WAL",
                        bytes >> 20
                    ),
                )
                .fix("Start cdc run, or give the slot up with cdc teardown.");
        }
        (None, _) => {}
    }
}

/// Whether the connection to a server elsewhere is protected, and the server proved to be the right
/// one.
pub(super) fn connection(findings: &mut Findings, side: &str, conninfo: &Conninfo) {
    let remote = conninfo.hosts.iter().find(|host| {
        let name = host.address.as_deref().unwrap_or(&host.host);
        let loopback = matches!(name, "localhost" | "::1") || name.starts_with("127.");
        !host.is_unix() && !loopback
    });
    if let Some(host) = remote.filter(|_| conninfo.ssl_mode != SslMode::VerifyFull) {
        findings
            .warning(
                side,
                format!("sslmode is below verify-full for host \"{}\"", host.host),
            )
            .detail("Somebody in between could read along, or pose as the server.")
            .fix("Set sslmode=verify-full, and sslrootcert where the authority is your own.");
    }
}

/// The target server and the bookkeeping's schema.
pub(super) fn target(findings: &mut Findings, settings: &Settings, server: &TargetServer) {
    version(findings, "target", server.version, &server.version_text);
    let user = ident(&server.user);
    let database = ident(&server.database);
    let schema = &settings.target.schema;
    if server.in_recovery {
        findings
            .error("target", "the server is a standby and takes no writes")
            .fix("Name the primary, or several hosts with target_session_attrs=read-write.");
    }
    if !server.may_use_temporary {
        findings
            .error(
                "target",
                format!("role \"{}\" may not make temporary tables", server.user),
            )
            .fix(format!("GRANT TEMPORARY ON DATABASE {database} TO {user};"));
    }
    if server.bookkeeping_exists && !server.bookkeeping_usable {
        findings
            .error(
                "target",
                format!("role \"{}\" may not use schema \"{schema}\"", server.user),
            )
            .fix(format!(
                "GRANT USAGE, CREATE ON SCHEMA {} TO {user};",
                ident(schema)
            ));
    } else if !server.bookkeeping_exists && !server.may_create {
        findings
            .error(
                "target",
                format!("role \"{}\" may not make schema \"{schema}\"", server.user),
            )
            .fix(format!(
                "CREATE SCHEMA {} AUTHORIZATION {user};",
                ident(schema)
            ));
    }
}

/// Why a source with SQL_ASCII is refused.
pub(crate) const SQL_ASCII_SOURCE: &str = "It does not know what its text means. The first text that is not UTF-8, of any published table, would end the \
    stream for good: the server refuses to send it.";
/// What to do about it.
pub(crate) const SQL_ASCII_HINT: &str = "Dump the database and restore it into one with the encoding that its text is in (CREATE DATABASE ... ENCODING).";

/// Whether the target can store what the source has.
pub(super) fn encodings(findings: &mut Findings, source: &str, target: &str) {
    if source == "SQL_ASCII" {
        findings
            .error("source", "server_encoding is SQL_ASCII")
            .detail(SQL_ASCII_SOURCE)
            .fix(SQL_ASCII_HINT);
    }
    if target == "SQL_ASCII" {
        findings
            .warning("target", "server_encoding is SQL_ASCII")
            .detail("Text is stored as UTF-8, but varchar(n) and char(n) count bytes there, not characters.")
            .fix("Keep the lookup tables in a database with encoding UTF8.");
    } else if target != source && target != "UTF8" {
        findings
            .warning(
                "target",
                format!("server_encoding is {target}, the source's is {source}"),
            )
            .detail("A row with a character that the target's encoding lacks is rejected.")
            .fix("Keep the lookup tables in a database with encoding UTF8.");
    }
}
