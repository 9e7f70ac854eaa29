//! What follows from a change of each setting.

use std::time::Duration;

use super::*;
use crate::conninfo::{DEFAULT_CONNECT_TIMEOUT_SECONDS, Host, Secret, SslMode};
use crate::settings::{ColumnMapping, OnRowError, ResyncSettings, SourceSettings, TargetSettings};
use crate::sql::TableName;

/// Two databases, and the labels.
pub(crate) fn settings() -> Settings {
    let conninfo = |database: &str| Conninfo {
        database: database.to_owned(),
        user: "cdc".to_owned(),
        password: Some(Secret::new("hunter2")),
        connect_timeout_seconds: Some(DEFAULT_CONNECT_TIMEOUT_SECONDS),
        ..Conninfo::default()
    };
    Settings {
        source: SourceSettings {
            conninfo: conninfo("master"),
            publication: "cdc".to_owned(),
            slot: "cdc".to_owned(),
            max_retained_wal: None,
            failover: true,
            publish_projected_columns: false,
        },
        target: TargetSettings {
            conninfo: conninfo("core"),
            schema: "cdc".to_owned(),
            synchronous_commit: true,
        },
        read_models: vec![ReadModelSettings::labels()],
        resync: ResyncSettings::default(),
        status_interval: Duration::from_secs(10),
        log_level: "info".to_owned(),
    }
}

fn tags() -> ReadModelSettings {
    ReadModelSettings {
        target: TableName::new("public", "tags_lookup"),
        ..ReadModelSettings::labels()
    }
}

fn host(name: &str, port: u16) -> Host {
    Host {
        host: name.to_owned(),
        address: None,
        port,
    }
}

/// What follows, in words: `; ` between changes, then what needs a restart, then the session.
fn said(reload: &Reload) -> String {
    let list = |changes: &[Change]| {
        let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
        changes.join("; ")
    };
    let session = match reload.session {
        Session::Continues => "continues",
        Session::BeginsAgain => "begins again",
    };
    format!(
        "[{}] [{}] {session}",
        list(&reload.changed),
        list(&reload.needs_restart)
    )
}

type Alter = fn(&mut Settings);

/// In force afterwards is what was read.
const TAKEN: &[(&str, Alter, &str)] = &[
    ("nothing", |_| {}, "[] [] continues"),
    (
        "log level",
        |s| s.log_level = "debug".to_owned(),
        r#"[log_level "info" -> "debug"] [] continues"#,
    ),
    (
        "schedule",
        |s| s.resync.schedule = None,
        r#"[resync.schedule "0 2 * * *" -> "off"] [] continues"#,
    ),
    (
        "time zone and jitter",
        |s| {
            s.resync.timezone = "Europe/Berlin".to_owned();
            s.resync.jitter = Duration::from_millis(1500);
        },
        r#"[resync.timezone "UTC" -> "Europe/Berlin"; resync.jitter "0s" -> "1500ms"] [] continues"#,
    ),
    (
        "limit of the WAL",
        |s| s.source.max_retained_wal = Some(10 << 30),
        r#"[source.max_retained_wal "off" -> "10GB"] [] continues"#,
    ),
    (
        "password of the source",
        |s| s.source.conninfo.password = Some(Secret::new("hunter3")),
        "[source password] [] continues",
    ),
    (
        "password of the target",
        |s| s.target.conninfo.password = Some(Secret::new("hunter3")),
        "[target password] [] continues",
    ),
    (
        "a password is gone",
        |s| s.target.conninfo.password = None,
        r#"[target.url "postgresql://cdc:****@localhost:5432/core" -> "postgresql://cdc@localhost:5432/core"; target password] [] continues"#,
    ),
    (
        "role and sslmode",
        |s| {
            s.source.conninfo.user = "other".to_owned();
            s.source.conninfo.ssl_mode = SslMode::Require;
        },
        r#"[source.url "postgresql://cdc:****@localhost:5432/master" -> "postgresql://other:****@localhost:5432/master?sslmode=require"] [] continues"#,
    ),
    (
        "status interval",
        |s| s.status_interval = Duration::from_secs(1),
        r#"[status_interval "10s" -> "1s"] [] begins again"#,
    ),
    (
        "published columns and failover",
        |s| {
            s.source.publish_projected_columns = true;
            s.source.failover = false;
        },
        r#"[source.publish_columns "all" -> "projected"; source.failover "on" -> "off"] [] begins again"#,
    ),
    (
        "synchronous commit",
        |s| s.target.synchronous_commit = false,
        r#"[target.synchronous_commit "on" -> "off"] [] begins again"#,
    ),
    (
        "a read model more",
        |s| s.read_models.push(tags()),
        "[read_model public.tags_lookup added] [] begins again",
    ),
    (
        "another one",
        |s| s.read_models = vec![tags()],
        "[read_model public.tags_lookup added; read_model public.labels_lookup removed] [] begins again",
    ),
    (
        "what a read model shows",
        |s| {
            s.read_models[0].columns.push(ColumnMapping::same("lang"));
            s.read_models[0].soft_delete = None;
        },
        "[read_model public.labels_lookup changed (columns, soft_delete)] [] begins again",
    ),
    (
        "the rest of a read model",
        |s| {
            s.read_models[0].source.name = "names".to_owned();
            s.read_models[0].key.push("label".to_owned());
            s.read_models[0].synced_at = None;
            s.read_models[0].on_row_error = OnRowError::Stop;
        },
        "[read_model public.labels_lookup changed (source, key, synced_at, on_row_error)] [] begins again",
    ),
];

#[test]
fn what_needs_no_restart_is_taken() {
    for (case, alter, expected) in TAKEN {
        let mut new = settings();
        alter(&mut new);
        let reload = compare(&settings(), new.clone());
        assert_eq!(said(&reload), *expected, "{case}");
        assert_eq!(reload.settings, new, "{case}");
        assert!(!said(&reload).contains("hunter"), "{case}");
        let continues = reload.session == Session::Continues;
        assert_eq!(new.has_session_of(&settings()), continues, "{case}");
        // What a new session brings is all that is put back.
        let back = new.clone().with_session_of(&settings());
        assert!(back.has_session_of(&settings()), "{case}");
        assert_eq!(back, if continues { new } else { settings() }, "{case}");
    }
}

#[test]
fn half_a_file_is_noticed() {
    let drops = ["another one", "the rest of a read model"];
    for (case, alter, _) in TAKEN {
        let mut new = settings();
        alter(&mut new);
        let reload = compare(&settings(), new.clone());
        assert_eq!(reload.drops_a_read_model(), drops.contains(case), "{case}");
        // It may lack the slot, too.
        new.source.slot = "other".to_owned();
        let reload = compare(&settings(), new);
        assert_eq!(reload.drops_a_read_model(), drops.contains(case), "{case}");
    }
}

#[test]
fn the_order_of_the_read_models_means_nothing() {
    let (mut old, mut new) = (settings(), settings());
    old.read_models.push(tags());
    new.read_models.insert(0, tags());
    assert_eq!(said(&compare(&old, new)), "[] [] continues");
}

/// In force afterwards is what was in force before.
const KEPT: &[(&str, Alter, &str)] = &[
    (
        "slot",
        |s| s.source.slot = "other".to_owned(),
        r#"[] [source.slot "cdc" -> "other"] continues"#,
    ),
    (
        "publication and schema",
        |s| {
            s.source.publication = "other".to_owned();
            s.target.schema = "cdc2".to_owned();
        },
        r#"[] [source.publication "cdc" -> "other"; target.schema "cdc" -> "cdc2"] continues"#,
    ),
    (
        "host",
        |s| s.source.conninfo.hosts = vec![host("new", 5432)],
        r#"[] [source.url "postgresql://cdc:****@localhost:5432/master" -> "postgresql://cdc:****@new:5432/master"] continues"#,
    ),
    (
        "port",
        |s| s.target.conninfo.hosts = vec![host("localhost", 5433)],
        r#"[] [target.url "postgresql://cdc:****@localhost:5432/core" -> "postgresql://cdc:****@localhost:5433/core"] continues"#,
    ),
    (
        "one host more",
        |s| s.source.conninfo.hosts.push(host("standby", 5432)),
        r#"[] [source.url "postgresql://cdc:****@localhost:5432/master" -> "postgresql://cdc:****@localhost:5432,standby:5432/master"] continues"#,
    ),
    (
        "another place with its own password",
        |s| {
            s.target.conninfo.database = "reports".to_owned();
            s.target.conninfo.password = Some(Secret::new("hunter3"));
        },
        r#"[] [target.url "postgresql://cdc:****@localhost:5432/core" -> "postgresql://cdc:****@localhost:5432/reports"] continues"#,
    ),
];

#[test]
fn what_says_which_pipeline_this_is_stays() {
    for (case, alter, expected) in KEPT {
        let mut new = settings();
        alter(&mut new);
        let reload = compare(&settings(), new.clone());
        assert_eq!(said(&reload), *expected, "{case}");
        assert_eq!(reload.settings, settings(), "{case}");
        // The next reload says it again.
        assert_eq!(said(&compare(&reload.settings, new)), *expected, "{case}");
    }
}

/// The read models of another pipeline are not for this one.
#[test]
fn what_begins_a_session_waits_for_a_restart_that_is_needed() {
    let elsewhere: [Alter; 3] = [
        |s| s.source.slot = "other".to_owned(),
        |s| s.target.schema = "other".to_owned(),
        |s| s.source.conninfo.database = "other".to_owned(),
    ];
    for elsewhere in elsewhere {
        let mut expected = settings();
        expected.target.conninfo.password = Some(Secret::new("hunter3"));
        expected.resync.schedule = None;
        let mut new = expected.clone();
        elsewhere(&mut new);
        new.source.failover = false;
        new.read_models = vec![tags()];
        let reload = compare(&settings(), new);
        assert_eq!(reload.settings, expected);
        let said = said(&reload);
        let taken = r#"[resync.schedule "0 2 * * *" -> "off"; target password] ["#;
        let waits = r#"; source.failover "on" -> "off"; read_model public.tags_lookup added; read_model public.labels_lookup removed] continues"#;
        assert!(said.starts_with(taken) && said.ends_with(waits), "{said}");
        assert_eq!(reload.needs_restart.len(), 4, "{said}");
    }
}

/// Where a connection string differs in what its text does not show, the key alone is named.
#[test]
fn a_difference_that_is_not_shown_is_named() {
    let mut new = settings();
    new.source.conninfo.keepalives.idle_seconds += 1;
    let reload = compare(&settings(), new);
    let named = said(&reload).contains("source.url");
    assert!(named && reload.needs_restart.is_empty(), "{reload:?}");
}
