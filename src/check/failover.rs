//! Whether the slot can follow a failover of the source, and whether the stream waits for a
//! standby.

use super::Findings;
use crate::facts::SourceServer;

/// First server_version_num with slots that standbys synchronize.
const FAILOVER_SLOTS: u32 = 170_000;

/// The settings that a standby needs, besides the primary's.
const AT_THE_STANDBY: &str = "at the standby: sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name, and a dbname in primary_conninfo.";

/// Standbys and the slots that they read; `wanted` is whether the slot shall follow a failover.
pub(super) fn source(findings: &mut Findings, server: &SourceServer, wanted: bool) {
    if !wanted {
        if !server.standby_slots.is_empty() {
            findings
                .note(
                    "source",
                    "the slot does not follow a failover to a standby: source.failover is off",
                )
                .detail("After one cdc makes a new slot, and copies everything.");
        }
        return;
    }
    let synchronized = &server.synchronized_standby_slots;
    for name in synchronized {
        let state = match server.standby_slots.iter().find(|(slot, _)| slot == name) {
            None => "does not exist",
            Some((_, false)) => "is read by nobody",
            Some((_, true)) => continue,
        };
        findings
            .warning("source", format!("slot \"{name}\" of synchronized_standby_slots {state}"))
            .detail("The server sends changes only after that standby has received them. Until then the stream is stalled.")
            .fix("Bring the standby back, or take its slot out of synchronized_standby_slots and reload.");
    }
    if server.standby_slots.is_empty() || !synchronized.is_empty() {
        return;
    }
    if server.version < FAILOVER_SLOTS {
        findings
            .note("source", "the slot does not follow a failover to a standby")
            .detail("Only PostgreSQL 17 and later take slots along. cdc makes a new one there, and copies everything.");
        return;
    }
    let names: Vec<&str> = server
        .standby_slots
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    findings
        .note("source", "there are standbys, but synchronized_standby_slots is empty")
        .detail(
            "cdc asks for a slot that follows a failover, but it may have applied commits that the new primary lacks; then it \
             makes a new slot there, and copies everything.",
        )
        .fix(format!(
            "ALTER SYSTEM SET synchronized_standby_slots = '{}'; SELECT pg_reload_conf(); {AT_THE_STANDBY}",
            names.join(", ")
        ));
}
