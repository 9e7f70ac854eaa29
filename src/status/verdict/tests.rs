//! What follows from a status, case by case.

use super::super::age::age_seconds;
use super::super::*;
use super::{MAX_AGE_SECONDS, STALE_HEARTBEAT_SECONDS, Slot};
use crate::conninfo::Conninfo;
use crate::settings::{ResyncSettings, SourceSettings, TargetSettings};
use std::time::Duration;

pub(in super::super) fn settings() -> Settings {
    Settings {
        source: SourceSettings {
            conninfo: Conninfo {
                database: "master".to_owned(),
                user: "cdc".to_owned(),
                ..Conninfo::default()
            },
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

/// A pipeline at work, with everything applied.
pub(in super::super) fn good() -> Observed {
    Observed {
        source: Ok(SourceSeen {
            version: "15.18".to_owned(),
            // 2026-11-25 02:13:40.
            now: Some(1_795_572_820_000_000),
            wal: Lsn(0x100),
            slot: Some(Slot {
                name: "cdc".to_owned(),
                plugin: Some("pgoutput".to_owned()),
                database: Some("master".to_owned()),
                active_pid: Some(4711),
                restart_lsn: Some(Lsn(0x80)),
                confirmed_flush_lsn: Some(Lsn(0x100)),
                wal_status: Some("reserved".to_owned()),
                safe_wal_bytes: None,
                invalidation_reason: None,
                held_bytes: Some(1_258_291),
            }),
        }),
        target: Ok(TargetSeen {
            version: "16.14".to_owned(),
            bookkeeping: Some(Bookkeeping {
                pipeline: Some(PipelineStatus {
                    state: "streaming".to_owned(),
                    state_since: Some("2026-11-25T01:00:00.000000Z".to_owned()),
                    owner: Some("db1:77".to_owned()),
                    heartbeat_age_seconds: Some(3.2),
                    session_present: true,
                    ..PipelineStatus::default()
                }),
                checkpoint: Some(Checkpoint {
                    lsn: "0/100".to_owned(),
                    commit_time: Some("2026-11-25T02:11:40.250000Z".to_owned()),
                    applied_at: Some("2026-11-25T02:11:40.300000Z".to_owned()),
                    applied_age_seconds: Some(120.0),
                    ..Checkpoint::default()
                }),
                read_models: vec![ReadModelStatus {
                    name: "public.labels_lookup".to_owned(),
                    source: "public.labels".to_owned(),
                    state: "in_step".to_owned(),
                    rows: Some(83),
                    last_change_at: Some("2026-11-24T11:05:00.000000Z".to_owned()),
                    last_resync: Some(LastResync {
                        at: "2026-11-25T02:00:03.000000Z".to_owned(),
                        repaired: 0,
                    }),
                    ..ReadModelStatus::default()
                }],
                resyncs: Vec::new(),
                // 2026-11-25 02:00:03 and 02:13:40.
                last_full_resync: Some(1_795_572_003_000_000),
                now: 1_795_572_820_000_000,
            }),
        }),
    }
}

fn bookkeeping(seen: &mut Observed) -> &mut Bookkeeping {
    seen.target.as_mut().unwrap().bookkeeping.as_mut().unwrap()
}

fn pipeline(seen: &mut Observed) -> &mut PipelineStatus {
    bookkeeping(seen).pipeline.as_mut().unwrap()
}

fn slot(seen: &mut Observed) -> &mut Slot {
    seen.source.as_mut().unwrap().slot.as_mut().unwrap()
}

fn check(verdict: Verdict, healthy: bool, part: &str, change: impl FnOnce(&mut Observed)) {
    let mut seen = good();
    change(&mut seen);
    let status = Status::new(&settings(), &seen);
    let text = format!("{} {:?}", status.summary, status.problems);
    assert_eq!(
        (status.verdict, status.healthy),
        (verdict, healthy),
        "{text}"
    );
    assert!(text.contains(part), "{part:?} is not in {text}");
}

#[test]
fn slot_above_the_wal_budget_is_said() {
    let mut with_limit = settings();
    with_limit.source.max_retained_wal = Some(1 << 20);
    let mut seen = good();
    slot(&mut seen).held_bytes = Some(3 << 20);
    let status = Status::new(&with_limit, &seen);
    assert_eq!((status.verdict, status.healthy), (Verdict::Slot, false));
    assert_eq!(
        status.summary,
        "slot \"cdc\" holds 3 MB of WAL, more than source.max_retained_wal (1 MB)"
    );
    assert_eq!(
        status.slot.as_ref().unwrap().max_retained_bytes,
        Some(1 << 20)
    );
    let text = super::super::render(&status);
    assert!(text.contains("holds 3 MB of at most 1 MB"), "{text}");
    slot(&mut seen).held_bytes = Some(1 << 20);
    assert!(Status::new(&with_limit, &seen).healthy);
}

#[test]
fn quiet_source_means_in_step_however_old_the_checkpoint() {
    check(Verdict::Ok, true, "public.labels_lookup is in step", |_| {});
}

#[test]
fn nothing_is_known_without_the_target() {
    check(
        Verdict::Unknown,
        false,
        "the target could not be asked: refused",
        |s| {
            s.target = Err("refused".to_owned());
        },
    );
    check(Verdict::Unknown, false, "refused", |s| {
        s.source = Err("refused".to_owned());
        s.target = Err("refused too".to_owned());
    });
}

#[test]
fn before_the_first_run_it_is_new() {
    check(Verdict::New, false, "has not run yet", |s| {
        s.target.as_mut().unwrap().bookkeeping = None;
        s.source.as_mut().unwrap().slot = None;
    });
    check(Verdict::New, false, "has not run yet", |s| {
        *bookkeeping(s) = Bookkeeping::default()
    });
}

#[test]
fn read_models_that_were_not_taken_up_yet_are_shown_all_the_same() {
    for (target_seen, state) in [(true, "new"), (false, "unknown")] {
        let mut seen = good();
        bookkeeping(&mut seen).read_models.clear();
        if !target_seen {
            seen.target = Err("refused".to_owned());
        }
        let expected = ReadModelStatus {
            name: "public.labels_lookup".to_owned(),
            source: "public.labels".to_owned(),
            state: state.to_owned(),
            ..ReadModelStatus::default()
        };
        assert_eq!(Status::new(&settings(), &seen).read_models, [expected]);
    }
}

#[test]
fn process_is_alive_by_heartbeat_or_session() {
    check(Verdict::Ok, true, "in step", |s| {
        pipeline(s).session_present = false
    });
    check(Verdict::Ok, true, "in step", |s| {
        pipeline(s).heartbeat_age_seconds = Some(STALE_HEARTBEAT_SECONDS)
    });
    check(
        Verdict::Stopped,
        false,
        "cdc is not running; the lookups are as of 2026-11-25 02:11:40",
        |s| {
            pipeline(s).session_present = false;
            pipeline(s).heartbeat_age_seconds = Some(STALE_HEARTBEAT_SECONDS);
        },
    );
    check(Verdict::Stopped, false, "Start cdc run", |s| {
        pipeline(s).state = "stopped".to_owned()
    });
}

#[test]
fn trouble_of_the_process_comes_before_what_follows_from_it() {
    check(
        Verdict::Retrying,
        false,
        "trying again: could not connect",
        |s| {
            pipeline(s).state = "retrying".to_owned();
            pipeline(s).error = Some("could not connect".to_owned());
            s.source = Err("refused".to_owned());
        },
    );
    check(
        Verdict::Unknown,
        false,
        "the source could not be asked",
        |s| s.source = Err("refused".to_owned()),
    );
}

#[test]
fn copies_and_suspended_read_models_are_told() {
    check(
        Verdict::Copying,
        false,
        "everything is being copied: slot missing",
        |s| {
            pipeline(s).healing = Some("slot missing".to_owned());
        },
    );
    for (healings, times) in [(1, "once"), (4, "4 times")] {
        let told = format!(
            "everything is copied again from 2026-11-25 02:40:00 on: slot missing (it was copied {times} within a short time)"
        );
        check(Verdict::Copying, false, &told, |s| {
            pipeline(s).healing = Some("slot missing".to_owned());
            pipeline(s).healing_after = Some("2026-11-25T02:40:00.000000Z".to_owned());
            pipeline(s).healings = healings;
        });
    }
    check(
        Verdict::Copying,
        false,
        "copied for the first time (40 of about 80 rows, 50 %)",
        |s| {
            let model = &mut bookkeeping(s).read_models[0];
            model.state = "new".to_owned();
            model.copy = Some(Copy::new(40, Some(80), None, None));
        },
    );
    check(
        Verdict::Suspended,
        false,
        "last good state: column gone",
        |s| {
            let model = &mut bookkeeping(s).read_models[0];
            model.state = "suspended".to_owned();
            model.reason = Some("column gone".to_owned());
        },
    );
}

#[test]
fn differences_that_a_comparison_left_are_told_until_the_next_one() {
    let compared = |differing| {
        move |seen: &mut Observed| {
            bookkeeping(seen).read_models[0].last_comparison = Some(LastComparison {
                at: "2026-11-25T02:10:00.000000Z".to_owned(),
                differing,
            });
        }
    };
    check(
        Verdict::Differs,
        false,
        "public.labels_lookup differs from its source in 2 rows, as the comparison of 2026-11-25 02:10:00 found",
        compared(2),
    );
    check(Verdict::Ok, true, "in step", compared(0));
    let mut seen = good();
    compared(1)(&mut seen);
    let text = super::super::render(&Status::new(&settings(), &seen));
    assert!(
        text.contains("DIFFERS   ") && text.contains("public.labels_lookup  differs  "),
        "{text}"
    );
}

#[test]
fn slot_in_danger_is_told() {
    check(Verdict::Slot, false, "does not exist", |s| {
        s.source.as_mut().unwrap().slot = None
    });
    check(Verdict::Slot, false, "is lost", |s| {
        slot(s).wal_status = Some("lost".to_owned())
    });
    check(Verdict::Slot, false, "about to be lost", |s| {
        slot(s).wal_status = Some("unreserved".to_owned())
    });
    check(Verdict::Slot, false, "not a pgoutput slot", |s| {
        slot(s).plugin = Some("wal2json".to_owned())
    });
    check(Verdict::Slot, false, "belongs to database", |s| {
        slot(s).database = Some("other".to_owned())
    });
    check(Verdict::Ok, true, "nobody reads", |s| {
        slot(s).active_pid = None
    });
}

/// A source that has written more than is applied, and lookups as of so many seconds before its
/// clock.
fn behind(seconds: f64) -> impl FnOnce(&mut Observed) {
    move |seen| {
        let source = seen.source.as_mut().unwrap();
        source.wal = Lsn(0x100 + (1320 << 20));
        let as_of = jiff::Timestamp::from_microsecond(source.now.unwrap()).unwrap();
        let as_of = as_of - jiff::SignedDuration::from_secs_f64(seconds);
        let checkpoint = bookkeeping(seen).checkpoint.as_mut().unwrap();
        checkpoint.commit_time = Some(as_of.to_string());
        // The time when it was stored says nothing: a stream stores positions of any age.
        checkpoint.applied_age_seconds = Some(0.1);
    }
}

#[test]
fn age_counts_from_as_of_where_wal_is_not_applied() {
    check(
        Verdict::Ok,
        true,
        "public.labels_lookup is at most 4.0 s behind",
        behind(4.0),
    );
    check(Verdict::Ok, true, "at most 22 s behind", behind(22.0));
    // A clock of the source that was set back.
    check(Verdict::Ok, true, "is in step", behind(-5.0));
}

#[test]
fn a_stream_that_catches_up_says_how_far_it_is() {
    let told = "is catching up with the source: as of 2026-11-25 02:13:15, 25 s behind, 1320 MB of WAL to go";
    check(Verdict::Ok, true, told, behind(25.0));
    check(Verdict::Ok, true, "catching up", behind(MAX_AGE_SECONDS));
    check(
        Verdict::Behind,
        false,
        "catching up with the source: as of 2026-11-25 02:12:39, 61 s behind",
        behind(MAX_AGE_SECONDS + 1.0),
    );
    check(
        Verdict::Behind,
        false,
        "the lookups may be 2 min old",
        |s| {
            behind(120.0)(s);
            pipeline(s).state = "starting".to_owned();
        },
    );
    let catching_up = |change: &dyn Fn(&mut Observed)| {
        let mut seen = good();
        behind(3600.0)(&mut seen);
        change(&mut seen);
        serde_json::to_value(Status::new(&settings(), &seen)).unwrap()["catching_up"].clone()
    };
    assert_eq!(
        catching_up(&|_| {}),
        serde_json::json!({"as_of": "2026-11-25T01:13:40Z", "age_seconds": 3600.0, "bytes": 1320 << 20})
    );
    // If it is not known, or no stream catches up.
    assert!(catching_up(&|s| s.source = Err("refused".to_owned())).is_null());
    assert!(catching_up(&|s| s.source.as_mut().unwrap().wal = Lsn(0x100)).is_null());
    assert!(
        catching_up(&|s| bookkeeping(s).checkpoint.as_mut().unwrap().commit_time = None).is_null()
    );
    assert!(
        catching_up(&|s| {
            pipeline(s).session_present = false;
            pipeline(s).heartbeat_age_seconds = None;
        })
        .is_null()
    );
}

#[test]
fn age_goes_by_the_sources_clock_else_by_the_targets() {
    let age = |lag_bytes: Option<u64>, source: Option<i64>, target: Option<i64>| {
        let checkpoint = Checkpoint {
            lag_bytes,
            commit_time: Some("1970-01-01T00:00:10Z".to_owned()),
            ..Checkpoint::default()
        };
        let source = source.map(|seconds| SourceSeen {
            version: String::new(),
            now: Some(seconds * 1_000_000),
            wal: Lsn::ZERO,
            slot: None,
        });
        age_seconds(
            Some(&checkpoint),
            source.as_ref(),
            target.map(|seconds| seconds * 1_000_000),
        )
    };
    assert_eq!(
        age(Some(0), Some(20), Some(30)),
        Some(0.0),
        "everything is applied"
    );
    assert_eq!(age(Some(5), Some(20), Some(30)), Some(10.0));
    assert_eq!(age(None, None, Some(30)), Some(20.0));
    assert_eq!(age(Some(5), None, None), None);
    assert_eq!(
        age_seconds(Some(&Checkpoint::default()), None, Some(0)),
        None,
        "as of no known time"
    );
    assert_eq!(age_seconds(None, None, Some(0)), None);
}

/// What status reports of a read model and its resyncs after the change.
fn problems(change: impl FnOnce(&mut Observed)) -> String {
    let mut seen = good();
    change(&mut seen);
    format!("{:?}", Status::new(&settings(), &seen).problems)
}

#[test]
fn what_is_over_or_told_already_is_not_told() {
    let waits = |state: &str| {
        vec![Resync {
            state: state.to_owned(),
            waiting_for: Some("pid 7".to_owned()),
            ..Resync::default()
        }]
    };
    assert!(!problems(|s| bookkeeping(s).resyncs = waits("done")).contains("pid 7"));
    let told = problems(|s| {
        bookkeeping(s).resyncs = waits("running");
        pipeline(s).waiting_for = Some("pid 7".to_owned());
    });
    assert_eq!(told.matches("pid 7").count(), 1, "{told}");
    let stopped = problems(|s| {
        bookkeeping(s).read_models[0].state = "new".to_owned();
        pipeline(s).state = "stopped".to_owned();
        pipeline(s).session_present = false;
    });
    assert!(!stopped.contains("copied for the first time"), "{stopped}");
    for (rejected, more) in [(1, false), (2, true)] {
        let told = problems(|s| {
            bookkeeping(s).read_models[0].rejected = rejected;
            bookkeeping(s).read_models[0].rejections = vec![Rejection::default()];
        });
        assert_eq!(told.contains(", ..."), more, "{told}");
    }
}

#[test]
fn drift_and_failed_resyncs_are_told_and_stay_healthy() {
    check(Verdict::Ok, true, "repaired 2 rows", |s| {
        bookkeeping(s).read_models[0]
            .last_resync
            .as_mut()
            .unwrap()
            .repaired = 2;
    });
    check(
        Verdict::Ok,
        true,
        "2 rows of public.labels_lookup had a key that",
        |s| {
            bookkeeping(s).read_models[0].waiting = 2;
        },
    );
    check(Verdict::Ok, true, "the last resync failed: no slot", |s| {
        bookkeeping(s).resyncs = vec![Resync {
            state: "failed".to_owned(),
            error: Some("no slot".to_owned()),
            ..Resync::default()
        }];
    });
    check(Verdict::Ok, true, "waits for pid 7", |s| {
        bookkeeping(s).resyncs = vec![Resync {
            state: "queued".to_owned(),
            waiting_for: Some("pid 7".to_owned()),
            ..Resync::default()
        }];
    });
}

#[test]
fn refused_rows_are_told_by_key_and_stay_healthy() {
    let told = "the target rejects 5 rows of public.labels_lookup: A (22001 label), 17 (P0001), -";
    check(Verdict::Ok, true, told, |s| {
        let model = &mut bookkeeping(s).read_models[0];
        model.rejected = 5;
        let row = |key: Option<&str>,
                   identity: Option<&str>,
                   sqlstate: &str,
                   column: Option<&str>| Rejection {
            key: key.map(str::to_owned),
            identity: identity.map(str::to_owned),
            sqlstate: sqlstate.to_owned(),
            column: column.map(str::to_owned),
            ..Rejection::default()
        };
        model.rejections = vec![
            row(Some("A"), Some("1"), "22001", Some("label")),
            row(None, Some("17"), "P0001", None),
            row(None, None, "23503", None),
            row(Some("D"), None, "23503", None),
        ];
    });
}

fn scheduled(id: i64, state: &str, error: Option<&str>) -> Resync {
    Resync {
        id,
        origin: "schedule".to_owned(),
        state: state.to_owned(),
        error: error.map(str::to_owned),
        ..Resync::default()
    }
}

const DAY: i64 = 86_400_000_000;

#[test]
fn a_scheduled_resync_that_was_missed_twice_is_a_problem() {
    // It is 02:13:40: last night's turn was missed, and this night's has begun.
    let missed = |seen: &mut Observed, nights: i64| {
        bookkeeping(seen).last_full_resync = Some(1_795_572_003_000_000 - nights * DAY);
    };
    check(Verdict::Ok, true, "in step", |s| missed(s, 1));
    check(Verdict::Ok, true, "in step", |s| missed(s, 2));
    let later = |seen: &mut Observed, nights| {
        missed(seen, nights);
        bookkeeping(seen).now += 3_600_000_000;
    };
    check(Verdict::Ok, true, "in step", |s| later(s, 1));
    let told =
        "two turns of the scheduled resync were missed, the second one at 2026-11-25 02:00:00";
    check(Verdict::Overdue, false, told, |s| later(s, 2));
    check(Verdict::Overdue, false, "it waits for process 7", |s| {
        later(s, 2);
        bookkeeping(s).resyncs = vec![Resync {
            waiting_for: Some("process 7 of role app".to_owned()),
            ..scheduled(9, "running", None)
        }];
    });
    check(Verdict::Overdue, false, "it failed: no room", |s| {
        later(s, 2);
        bookkeeping(s).resyncs = vec![
            scheduled(9, "running", None),
            scheduled(8, "failed", Some("no room")),
        ];
    });
    check(Verdict::Stopped, false, "cdc is not running", |s| {
        later(s, 2);
        pipeline(s).state = "stopped".to_owned();
    });
    let mut off = settings();
    off.resync.schedule = None;
    let mut seen = good();
    later(&mut seen, 30);
    assert!(Status::new(&off, &seen).healthy);
}

#[test]
fn a_scheduled_resync_that_failed_is_told_until_another_one_is_done() {
    let error = "temporary file size exceeds temp_file_limit (64kB) (SQLSTATE 53400)";
    let told = format!("the last scheduled resync failed: {error}");
    for state in ["running", "queued", "done"] {
        check(Verdict::Ok, true, &told, |s| {
            let later = Resync {
                origin: if state == "running" {
                    "schedule"
                } else {
                    "watch"
                }
                .to_owned(),
                ..scheduled(9, state, None)
            };
            bookkeeping(s).resyncs = vec![later, scheduled(8, "failed", Some(error))];
        });
    }
    check(
        Verdict::Ok,
        true,
        "ALTER ROLE ... SET temp_file_limit = -1",
        |s| {
            bookkeeping(s).resyncs = vec![scheduled(8, "failed", Some(error))];
        },
    );
    let mut seen = good();
    bookkeeping(&mut seen).resyncs = vec![
        scheduled(9, "done", None),
        scheduled(8, "failed", Some(error)),
    ];
    assert_eq!(Status::new(&settings(), &seen).problems, []);
}

#[test]
fn json_has_the_fields_that_were_promised() {
    let status = serde_json::to_value(Status::new(&settings(), &good())).unwrap();
    for pointer in [
        "/schema",
        "/verdict",
        "/summary",
        "/healthy",
        "/problems",
        "/source/address",
        "/source/reachable",
        "/source/version",
        "/source/error",
        "/target/reachable",
        "/slot/name",
        "/slot/active",
        "/slot/wal_status",
        "/slot/held_bytes",
        "/pipeline/alive",
        "/pipeline/state",
        "/pipeline/heartbeat_age_seconds",
        "/pipeline/healing_after",
        "/pipeline/healings",
        "/checkpoint/lsn",
        "/checkpoint/commit_time",
        "/checkpoint/applied_at",
        "/checkpoint/lag_bytes",
        "/catching_up",
        "/read_models/0/name",
        "/read_models/0/source",
        "/read_models/0/state",
        "/read_models/0/reason",
        "/read_models/0/rows",
        "/read_models/0/age_seconds",
        "/read_models/0/last_change_at",
        "/read_models/0/last_resync/at",
        "/read_models/0/last_resync/repaired",
        "/read_models/0/copy",
        "/read_models/0/waiting",
        "/read_models/0/rejected",
        "/read_models/0/rejections",
        "/resyncs",
        "/resync_schedule/next_at",
        "/resync_schedule/overdue_since",
    ] {
        assert!(status.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(status["schema"], 1);
    assert_eq!(status["verdict"], "ok");
    assert!(
        status["problems"].is_array() && status["resyncs"].is_array(),
        "lists are never null"
    );
}
