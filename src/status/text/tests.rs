use super::super::verdict::tests::{good, settings};
use super::super::{LastResync, Observed, Problem, Resync};
use super::*;

#[test]
fn verdict_stands_first_and_everything_fits() {
    let text = render(&Status::new(&settings(), &good()));
    assert_eq!(
        text,
        "\
OK        public.labels_lookup is in step

read model            state    rows    age  last change (UTC)    last resync (UTC)
public.labels_lookup  in step    83  0.0 s  2026-11-24 11:05:00  2026-11-25 02:00:03

cdc         streaming since 2026-11-25 01:00:00, db1:77, seen 3.2 s ago
checkpoint  0/100 as of 2026-11-25 02:11:40, 0 B of WAL to go
slot        cdc: read by 4711, reserved, holds 1 MB, confirmed 0/100
source      localhost:5432/master as cdc, PostgreSQL 15.18
target      localhost:5432/ as , PostgreSQL 16.14
schedule    0 2 * * * (UTC), next 2026-11-26 02:00:00
"
    );
}

#[test]
fn progress_of_copies_is_one_line() {
    let known = Copy::new(500, Some(2000), Some(40_000), Some(10.0));
    let unknown = Copy::new(1, None, Some(10), None);
    assert_eq!(progress_line([]), "");
    assert_eq!(
        progress_line([("public.labels_lookup", &known)]),
        "public.labels_lookup: 500 of about 2000 rows, 25 %, 39 kB, 50 rows/s, 30 s left"
    );
    assert_eq!(
        progress_line([("a.b", &unknown), ("c.d", &unknown)]),
        "a.b: 1 row so far, 10 B; c.d: 1 row so far, 10 B"
    );
}

#[test]
fn what_could_not_be_seen_is_said() {
    let seen = Observed {
        source: Err("connection refused\n".repeat(20)),
        target: Err("timeout".to_owned()),
    };
    let text = render(&Status::new(&settings(), &seen));
    assert!(
        text.starts_with("UNKNOWN   the target could not be asked: timeout\n"),
        "{text}"
    );
    assert!(text.contains("slot        not seen\n"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() < 100),
        "{text}"
    );
}

#[test]
fn long_text_is_broken_at_blanks_and_kept_whole() {
    let text = format!("error: {}end", "word ".repeat(40));
    let lines = wrap(&text, "    ");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].starts_with("    word"));
    let words: Vec<_> = lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .collect();
    assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        wrap(&"x".repeat(200), "    ").len(),
        1,
        "what has no blank is cut off later"
    );
}

#[test]
fn problems_follow_the_verdict_which_has_told_the_first_one_already() {
    let problem = |severity, message: &str, hint: Option<&str>| Problem {
        severity,
        subject: "cdc".to_owned(),
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
    };
    let mut status = Status::new(&settings(), &good());
    status.summary = "cdc does not run".to_owned();
    status.problems = vec![
        problem("error", "cdc does not run", Some("Start it.")),
        problem("warning", "the slot holds much", None),
    ];
    let text = render(&status);
    let lines: Vec<_> = text.lines().take(4).collect();
    assert_eq!(
        lines,
        [
            "OK        cdc does not run",
            "hint: Start it.",
            "warning: the slot holds much",
            "",
        ]
    );
}

#[test]
fn copies_and_the_newest_resync_have_lines_of_their_own() {
    let mut status = Status::new(&settings(), &good());
    status.read_models[0].copy = Some(Copy::new(500, Some(2000), None, None));
    let resync = |state: &str| Resync {
        state: state.to_owned(),
        origin: "request".to_owned(),
        requested_at: "2026-11-25T02:00:00.000000Z".to_owned(),
        ..Resync::default()
    };
    status.resyncs = vec![resync("running"), resync("done")];
    status.slot = None;
    let text = render(&status);
    let lines: Vec<_> = text.lines().skip(7).collect();
    assert_eq!(lines[0], "slot        none");
    assert_eq!(
        lines[3..5],
        [
            "copy        public.labels_lookup: 500 of about 2000 rows, 25 %",
            "resync      running (request), requested 2026-11-25 02:00:00",
        ]
    );
    assert!(lines[5].starts_with("schedule "), "{text}");

    status.resyncs[0].waiting_for = Some("pid 9".to_owned());
    assert!(
        render(&status).contains("requested 2026-11-25 02:00:00, waits for pid 9\n"),
        "{text}"
    );
}

#[test]
fn read_models_show_what_is_known_of_them() {
    let known = Status::new(&settings(), &good()).read_models.remove(0);
    let unknown = ReadModelStatus {
        name: "a_schema_of_some_length.and_a_table".to_owned(),
        state: "new".to_owned(),
        ..ReadModelStatus::default()
    };
    assert_eq!(
        row(&unknown),
        ["a_schema_of_some_length.and…", "new", "-", "-", "-", "-"]
    );
    for (copy, state) in [
        (Copy::new(7, None, None, None), "copying 7"),
        (Copy::new(7, Some(10), None, None), "copying 70 %"),
    ] {
        let copying = ReadModelStatus {
            copy: Some(copy),
            ..known.clone()
        };
        assert_eq!(row(&copying)[1], state);
    }
    let repaired = ReadModelStatus {
        last_resync: known.last_resync.clone().map(|last| LastResync {
            repaired: 2,
            ..last
        }),
        ..known
    };
    assert_eq!(row(&repaired)[5], "2026-11-25 02:00:03, repaired 2");
}

#[test]
fn the_process_is_named_with_its_last_sign_of_life() {
    let alive = PipelineStatus {
        alive: true,
        state: "streaming".to_owned(),
        state_since: Some("2026-11-25T01:00:00Z".to_owned()),
        owner: Some("db1:77".to_owned()),
        heartbeat_age_seconds: Some(3.2),
        ..PipelineStatus::default()
    };
    let dead = PipelineStatus {
        alive: false,
        heartbeat_age_seconds: Some(300.0),
        ..alive.clone()
    };
    for (seen, text) in [
        (None, "has not run yet, or could not be seen"),
        (
            Some(&alive),
            "streaming since 2026-11-25 01:00:00, db1:77, seen 3.2 s ago",
        ),
        (Some(&dead), "not running, db1:77, seen 5 min ago"),
        (Some(&PipelineStatus::default()), "not running"),
    ] {
        assert_eq!(pipeline(seen), text);
    }
}

#[test]
fn slot_and_servers_show_what_is_known_of_them() {
    let read = Status::new(&settings(), &good()).slot.unwrap();
    let limited = SlotStatus {
        max_retained_bytes: Some(2 << 30),
        safe_wal_bytes: Some(5 << 20),
        ..read.clone()
    };
    let lost = SlotStatus {
        active_pid: None,
        wal_status: Some("lost".to_owned()),
        held_bytes: None,
        confirmed_flush_lsn: None,
        invalidation_reason: Some("wal_removed".to_owned()),
        ..read
    };
    for (slot, text) in [
        (
            limited,
            "cdc: read by 4711, reserved, holds 1 MB of at most 2048 MB, 5 MB to the limit, confirmed 0/100",
        ),
        (lost, "cdc: nobody reads it, lost, wal_removed"),
    ] {
        assert_eq!(slot_line(&slot), text);
    }
    for (version, error, text) in [
        (
            Some("15.18 (Debian 15.18-1)"),
            None,
            "db:5432/app as cdc, PostgreSQL 15.18",
        ),
        (
            None,
            Some("timeout"),
            "db:5432/app as cdc, not seen: timeout",
        ),
        (None, None, "db:5432/app as cdc, not seen"),
    ] {
        let seen = SideStatus {
            address: "db:5432/app as cdc".to_owned(),
            reachable: version.is_some(),
            version: version.map(str::to_owned),
            error: error.map(str::to_owned),
        };
        assert_eq!(side(&seen), text);
    }
}

#[test]
fn schedule_is_said_with_the_delay_of_this_pipeline() {
    for (delay_seconds, delay) in [
        (0, ""),
        (1, " and 1 s"),
        (119, " and 119 s"),
        (120, " and 2 min"),
        (1859, " and 30 min"),
    ] {
        let seen = ResyncSchedule {
            schedule: "0 2 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            delay_seconds,
            next_at: None,
            overdue_since: None,
        };
        assert_eq!(
            schedule(&seen),
            format!("schedule    0 2 * * * (UTC){delay}")
        );
    }
}

#[test]
fn lines_are_filled_to_the_width_and_not_beyond() {
    let fits = format!("{} {}", "x".repeat(49), "y".repeat(49));
    assert_eq!(wrap(&fits, "  "), std::slice::from_ref(&fits));
    assert_eq!(
        wrap(&format!("{fits} z"), "  "),
        [format!("{fits} "), "  z".to_owned()]
    );
    assert_eq!(
        wrap(&format!("{fits}y"), "  ").len(),
        2,
        "one character more than there is room for"
    );
    for (text, width, clipped) in [
        ("four", 4, "four"),
        ("fiver", 4, "fiv…"),
        ("über", 4, "über"),
        ("a\nb\tc", 9, "a b c"),
    ] {
        assert_eq!(clip(text, width), clipped);
    }
}

#[test]
fn numbers_are_said_as_people_say_them() {
    for (seconds, text) in [
        (-1.0, "0.0 s"),
        (0.0, "0.0 s"),
        (9.9, "9.9 s"),
        (10.0, "10 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7_199.0, "120 min"),
        (7_200.0, "2 h"),
        (172_799.0, "48 h"),
        (172_800.0, "2 d"),
    ] {
        assert_eq!(duration(seconds), text);
    }
    for (bytes, text) in [
        (1_023, "1023 B"),
        (1_024, "1 kB"),
        ((1 << 20) - 1, "1023 kB"),
        (1 << 20, "1 MB"),
        ((10 << 30) - 1, "10239 MB"),
        (10 << 30, "10 GB"),
    ] {
        assert_eq!(size(bytes), text);
    }
    for (count, text) in [(0, "0 rows"), (1, "1 row"), (2, "2 rows")] {
        assert_eq!(rows(count), text);
    }
}
