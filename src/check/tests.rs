//! A table of cases: a good set-up, one change, and what is then found.

mod tables;

use super::*;
use crate::conninfo::Conninfo;
use crate::facts::{LookupColumn, PublishedTable, ReplicaIdentity};
use crate::identity::tests::{labels, strings};
use crate::ownership::tests::ownership;
use crate::read_model::lookup_obstacles::tests::{lookup, lookup_column};
use crate::settings::{ReadModelSettings, ResyncSettings, SourceSettings, TargetSettings};
use crate::sql::TableName;
use std::time::Duration;

struct Case {
    settings: Settings,
    source: SourceSide,
    target: TargetSide,
}

impl Case {
    /// Everything in order.
    fn good() -> Self {
        Self {
            settings: settings(),
            source: SourceSide {
                server: source_server(),
                slot: None,
                publication: Some(publication("cdc")),
                without_identity: Vec::new(),
                system: ("1".to_owned(), "master".to_owned()),
                comments: vec![ownership().pipeline.mark()],
                models: vec![SourceModel {
                    table: Some(labels()),
                    duplicates: Some(0),
                    without_key: Some(0),
                    publications: vec![publication("cdc")],
                }],
            },
            target: TargetSide {
                server: TargetServer {
                    version: 150_018,
                    version_text: "15.18".to_owned(),
                    user: "cdc".to_owned(),
                    database: "core".to_owned(),
                    may_create: true,
                    may_use_temporary: true,
                    encoding: "UTF8".to_owned(),
                    bookkeeping_usable: true,
                    ..TargetServer::default()
                },
                ownership: ownership(),
                lookups: vec![Some(lookup())],
                temp_files: None,
            },
        }
    }

    fn table(&mut self) -> &mut SourceTable {
        self.source.models[0].table.as_mut().unwrap()
    }

    fn lookup(&mut self) -> &mut LookupTable {
        self.target.lookups[0].as_mut().unwrap()
    }

    fn published(&mut self) -> &mut PublishedTable {
        &mut self.source.models[0].publications[0].tables[0]
    }
}

fn settings() -> Settings {
    Settings {
        source: SourceSettings {
            conninfo: Conninfo::default(),
            publication: "cdc".to_owned(),
            slot: "cdc".to_owned(),
            max_retained_wal: None,
            failover: true,
            publish_projected_columns: false,
        },
        target: TargetSettings {
            conninfo: Conninfo::default(),
            schema: "cdc".to_owned(),
            synchronous_commit: true,
        },
        read_models: vec![ReadModelSettings::labels()],
        resync: ResyncSettings::default(),
        status_interval: Duration::from_secs(10),
        log_level: "info".to_owned(),
    }
}

fn source_server() -> SourceServer {
    SourceServer {
        version: 150_018,
        version_text: "15.18".to_owned(),
        wal_level: "logical".to_owned(),
        user: "cdc".to_owned(),
        database: "master".to_owned(),
        may_replicate: true,
        may_create: true,
        slots: (0, 10),
        wal_senders: (0, 10),
        max_slot_wal_keep_size_mb: 10_240,
        encoding: "UTF8".to_owned(),
        ..SourceServer::default()
    }
}

fn publication(name: &str) -> Publication {
    Publication {
        oid: 1,
        name: name.to_owned(),
        all_tables: false,
        insert: true,
        update: true,
        delete: true,
        truncate: true,
        via_root: false,
        comment: Some(crate::ownership::tests::ownership().pipeline.mark()),
        owned: true,
        tables: vec![PublishedTable {
            table: TableName::new("public", "labels"),
            columns: None,
            row_filter: None,
        }],
    }
}

fn slot(plugin: Option<&str>, database: &str, wal_status: &str, held_bytes: i64) -> Slot {
    Slot {
        name: "cdc".to_owned(),
        plugin: plugin.map(str::to_owned),
        database: Some(database.to_owned()),
        active_pid: None,
        restart_lsn: None,
        confirmed_flush_lsn: None,
        wal_status: Some(wal_status.to_owned()),
        safe_wal_bytes: None,
        invalidation_reason: None,
        held_bytes: Some(held_bytes),
    }
}

/// What is found after one change.
fn found_after(change: impl FnOnce(&mut Case)) -> Vec<Finding> {
    let mut case = Case::good();
    change(&mut case);
    check(&case.settings, Some(&case.source), Some(&case.target))
}

/// `expected` is `error`, `warning` or `note`, and a part of the finding with its detail and fix.
fn finds(expected: &str, part: &str, change: impl FnOnce(&mut Case)) {
    let findings = found_after(change);
    let text: Vec<String> = findings
        .iter()
        .map(|finding| {
            let Finding {
                severity,
                subject,
                message,
                detail,
                fix,
            } = finding;
            format!(
                "{}: {subject}: {message} {detail:?} {fix:?}",
                severity.word()
            )
        })
        .collect();
    let found = text
        .iter()
        .any(|line| line.starts_with(expected) && line.contains(part));
    assert!(found, "expected {expected} with {part:?}, found {text:#?}");
    assert_eq!(
        is_ready(&findings),
        !text.iter().any(|line| line.starts_with("error"))
    );
}

/// The note about releases is the only finding.
fn fine(change: impl FnOnce(&mut Case)) {
    let findings = found_after(change);
    assert_eq!(findings.len(), 1, "{findings:#?}");
}

#[test]
fn good_set_up_has_only_the_note_about_releases() {
    fine(|_| ());
}

#[test]
fn the_last_line_counts_the_findings() {
    let last = |change: &dyn Fn(&mut Case)| {
        let text = render(&found_after(change));
        text.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(
        last(&|_| ()),
        "Everything is ready. 0 errors, 0 warnings, 1 note."
    );
    assert_eq!(
        last(&|c| c.source.server.prepared_transactions = 1),
        "Ready, with warnings. 0 errors, 1 warning, 1 note."
    );
    assert_eq!(
        last(&|c| c.source.server.in_recovery = true),
        "Not ready. 1 error, 0 warnings, 1 note."
    );
    assert_eq!(
        last(&|c| {
            c.source.server.in_recovery = true;
            c.source.server.may_replicate = false;
            c.source.server.synchronous_standby_names = "east".to_owned();
        }),
        "Not ready. 2 errors, 0 warnings, 2 notes."
    );
}

#[test]
fn findings_begin_at_their_limits() {
    for version in [140_000, 189_999] {
        fine(|c| {
            c.source.server.version = version;
            c.target.server.version = version;
        });
    }
    finds("error: target", "too old", |c| {
        c.target.server.version = 129_999
    });
    for version in [130_000, 139_999] {
        finds("note: target", "not supported any more", |c| {
            c.target.server.version = version
        });
    }
    fine(|c| c.source.server.slots = (8, 10));
    fine(|c| c.source.server.wal_senders = (8, 10));
    finds("warning", "no second walsender", |c| {
        c.source.server.wal_senders = (9, 10)
    });
    let ours = |held: i64| slot(Some("pgoutput"), "master", "reserved", held);
    // The slot that is there already needs none.
    fine(|c| {
        c.source.slot = Some(ours(0));
        c.source.server.slots = (9, 10);
    });
    finds("warning", "no second replication slot", |c| {
        c.source.slot = Some(ours(0));
        c.source.server.slots = (10, 10);
    });
    // A slot without a reader has no walsender.
    finds("error", "no walsender is free", |c| {
        c.source.slot = Some(ours(0));
        c.source.server.wal_senders = (10, 10);
    });
    fine(|c| c.source.slot = Some(ours((1 << 30) - 1)));
    finds("warning", "1024 MB", |c| {
        c.source.slot = Some(ours(1 << 30))
    });
    fine(|c| c.source.server.oldest_write_seconds = Some(59));
    finds("warning", "open for 60 s", |c| {
        c.source.server.oldest_write_seconds = Some(60)
    });
    fine(|c| c.source.server.max_slot_wal_keep_size_mb = 0);
    finds("note", "for 1 s is invalidated", |c| {
        c.source.server.idle_slot_timeout_seconds = 1
    });
}

#[test]
fn side_that_could_not_be_asked_is_left_out() {
    let case = Case::good();
    assert!(check(&case.settings, None, None).is_empty());
    assert!(check(&case.settings, None, Some(&case.target)).is_empty());
    assert!(is_ready(&check(&case.settings, Some(&case.source), None)));
}

#[test]
fn source_server_and_role_are_checked() {
    finds("error", "too old", |c| c.source.server.version = 120_000);
    finds("note", "not supported any more", |c| {
        c.source.server.version = 130_023
    });
    finds("note", "newer than", |c| c.source.server.version = 190_000);
    finds("error", "wal_level", |c| {
        c.source.server.wal_level = "replica".to_owned()
    });
    finds("error", "standby", |c| c.source.server.in_recovery = true);
    finds("error", "ALTER ROLE \\\"cdc\\\" REPLICATION", |c| {
        c.source.server.may_replicate = false
    });
    finds("error", "no replication slot is free", |c| {
        c.source.server.slots = (10, 10)
    });
    finds("warning", "no second replication slot", |c| {
        c.source.server.slots = (9, 10)
    });
    finds("error", "no walsender is free", |c| {
        c.source.server.wal_senders = (10, 10)
    });
    finds("warning", "without limit", |c| {
        c.source.server.max_slot_wal_keep_size_mb = -1
    });
    finds("note", "idle_replication_slot_timeout", |c| {
        c.source.server.idle_slot_timeout_seconds = 60
    });
    finds("warning", "open for 90 s", |c| {
        c.source.server.oldest_write_seconds = Some(90)
    });
    finds("warning", "prepared transactions", |c| {
        c.source.server.prepared_transactions = 1
    });
    finds("note", "synchronous standbys", |c| {
        c.source.server.synchronous_standby_names = "east".to_owned()
    });
    for (limit, found) in [(20 << 20, false), ((20 << 20) - 1024, true)] {
        let room = |c: &mut Case| {
            c.target.temp_files = Some(TempFiles {
                limit,
                lookup: TableName::new("public", "labels_lookup"),
                bytes: 10 << 20,
            });
        };
        if found {
            finds("warning: target", "temp_file_limit is 19 MB", room);
        } else {
            fine(room);
        }
    }
    for setting in ["*", "ANY 1 (east, \"cdc cdc stream\")"] {
        finds("warning: source", "commits wait for cdc", |c| {
            c.source.server.synchronous_standby_names = setting.to_owned()
        });
    }
    finds("warning: source", "commits wait for cdc", |c| {
        c.settings.source.conninfo.application_name = Some("east".to_owned());
        c.source.server.synchronous_standby_names = "EAST".to_owned();
    });
}

#[test]
fn standbys_that_the_stream_waits_for_or_that_cannot_take_the_slot_along_are_told() {
    let standby = |version: u32, used: bool, synchronized: &[&str]| {
        let synchronized = strings(synchronized);
        move |c: &mut Case| {
            c.source.server.version = version;
            c.source.server.standby_slots = vec![("east".to_owned(), used)];
            c.source.server.synchronized_standby_slots = synchronized;
        }
    };
    finds(
        "note",
        "does not follow a failover",
        standby(160_000, true, &[]),
    );
    finds(
        "note",
        "synchronized_standby_slots is empty",
        standby(170_000, true, &[]),
    );
    finds("note", "source.failover is off", |c| {
        standby(180_000, false, &["east"])(c);
        c.settings.source.failover = false;
    });
    finds(
        "warning",
        "is read by nobody",
        standby(180_000, false, &["east"]),
    );
    finds(
        "warning",
        "does not exist",
        standby(180_000, true, &["east", "west"]),
    );
    let mut case = Case::good();
    standby(180_000, true, &["east"])(&mut case);
    let findings = check(&case.settings, Some(&case.source), Some(&case.target));
    assert!(
        !findings
            .iter()
            .any(|finding| finding.message.contains("standby"))
    );
}

#[test]
fn connection_to_a_server_elsewhere_is_checked() {
    let host = |name: &str| {
        let name = name.to_owned();
        move |c: &mut Case| c.settings.source.conninfo.hosts[0].host = name
    };
    finds("warning", "verify-full", host("master.example"));
    finds("warning", "verify-full", host("10.0.0.1"));
    for near in ["localhost", "127.0.0.1", "::1", "/run/postgresql"] {
        let mut case = Case::good();
        host(near)(&mut case);
        assert!(check(&case.settings, None, None).is_empty(), "{near}");
    }
}

#[test]
fn slot_is_checked() {
    let with = |slot: Slot| move |c: &mut Case| c.source.slot = Some(slot);
    finds(
        "error",
        "physical",
        with(slot(None, "master", "reserved", 0)),
    );
    finds(
        "error",
        "wal2json",
        with(slot(Some("wal2json"), "master", "reserved", 0)),
    );
    finds(
        "error",
        "belongs to database",
        with(slot(Some("pgoutput"), "other", "reserved", 0)),
    );
    finds(
        "warning",
        "lost",
        with(slot(Some("pgoutput"), "master", "lost", 0)),
    );
    finds(
        "warning",
        "about to be lost",
        with(slot(Some("pgoutput"), "master", "unreserved", 0)),
    );
    finds(
        "warning",
        "2048 MB",
        with(slot(Some("pgoutput"), "master", "extended", 2 << 30)),
    );
    finds("note", "process 7", |c| {
        c.source.slot = Some(Slot {
            active_pid: Some(7),
            ..slot(Some("pgoutput"), "master", "reserved", 0)
        });
        c.source.server.slots = (9, 10);
    });
}

#[test]
fn slot_of_another_is_told() {
    let ours = || slot(Some("pgoutput"), "master", "reserved", 0);
    fine(|c| c.source.slot = Some(ours()));
    finds("error", "is not known to be this pipeline's", |c| {
        c.source.slot = Some(ours());
        c.source.comments.clear();
    });
    finds("error", "source.slot and source.publication", |c| {
        c.source.slot = Some(ours());
        c.source.comments = vec![
            ownership()
                .pipeline
                .mark()
                .replace("identifier 7", "identifier 8"),
        ];
    });
    fine(|c| {
        c.source.slot = Some(ours());
        c.source.comments.clear();
        c.target.ownership.known.slot_made_at = Some(("1".to_owned(), "master".to_owned()));
    });
    finds("error", "belongs to a pipeline with slot \"other\"", |c| {
        c.target.ownership.known.other_slot = Some("other".to_owned());
    });
}

#[test]
fn publication_is_checked() {
    finds("note", "CREATE PUBLICATION \\\"cdc\\\" FOR TABLE", |c| {
        c.source.publication = None
    });
    finds(
        "error",
        "As the owner of the tables: CREATE PUBLICATION",
        |c| {
            c.source.publication = None;
            c.source.server.may_create = false;
        },
    );
    finds(
        "error",
        "Let the owner of the tables run: CREATE PUBLICATION",
        |c| {
            c.source.publication = None;
            c.table().owned = false;
        },
    );
    finds("error", "Run: ALTER PUBLICATION", |c| {
        let publication = c.source.publication.as_mut().unwrap();
        publication.comment = None;
        publication.tables.clear();
    });
    finds("note", "ALTER PUBLICATION", |c| {
        c.source.publication.as_mut().unwrap().tables.clear()
    });
    // A missing table is reported once.
    let findings = found_after(|c| c.source.models[0].table = None);
    assert!(
        !findings
            .iter()
            .any(|finding| finding.subject.starts_with("publication")),
        "{findings:#?}"
    );
    let of_another = || {
        Some(
            ownership()
                .pipeline
                .mark()
                .replace("identifier 7", "identifier 8"),
        )
    };
    finds("warning", "source.publication", |c| {
        c.source.publication.as_mut().unwrap().comment = of_another();
    });
    finds("error", "Give this pipeline names of its own", |c| {
        let publication = c.source.publication.as_mut().unwrap();
        publication.comment = of_another();
        publication.tables.clear();
    });
    finds("warning", "column list", |c| {
        c.source.publication.as_mut().unwrap().tables[0].columns = Some(strings(&["id", "code"]));
    });
    finds(
        "error",
        "makes UPDATE and DELETE on \"public.labels\" fail",
        |c| {
            c.published().columns = Some(strings(&["code"]));
        },
    );
    finds(
        "error",
        "column \\\"deleted_at\\\", which is not part",
        |c| {
            c.published().row_filter = Some("(deleted_at IS NULL)".to_owned());
        },
    );
    finds("error", "makes UPDATE and DELETE", |c| {
        c.table().replica_identity = ReplicaIdentity::Nothing
    });
}

#[test]
fn target_server_is_checked() {
    finds("error", "takes no writes", |c| {
        c.target.server.in_recovery = true
    });
    finds("error", "GRANT TEMPORARY", |c| {
        c.target.server.may_use_temporary = false
    });
    finds("error", "AUTHORIZATION", |c| {
        c.target.server.may_create = false
    });
    finds("error", "GRANT USAGE, CREATE ON SCHEMA", |c| {
        c.target.server.bookkeeping_exists = true;
        c.target.server.bookkeeping_usable = false;
    });
    // An existing schema needs no right to create it.
    fine(|c| {
        c.target.server.bookkeeping_exists = true;
        c.target.server.may_create = false;
    });
    finds("warning", "LATIN1", |c| {
        c.target.server.encoding = "LATIN1".to_owned()
    });
    for target in ["LATIN1", "UTF8"] {
        fine(|c| {
            c.source.server.encoding = "LATIN1".to_owned();
            c.target.server.encoding = target.to_owned();
        });
    }
    finds("warning", "count bytes there", |c| {
        c.target.server.encoding = "SQL_ASCII".to_owned()
    });
    finds("error", "SQL_ASCII", |c| {
        c.source.server.encoding = "SQL_ASCII".to_owned()
    });
}
