//! Comparisons where no `cdc` runs: they tell how wrong a lookup is, and leave nothing behind on
//! either side.

use cdc::cluster::{Cluster, Options};
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::{
    self, Cdc, LABELS_MODEL, Pair, Side, Signal, labels_pair, labels_pair_on, on_free_slot, pg,
    rows, value, wait_in_step, wait_log, wait_rows, wait_until,
};

/// Everything that could outlive a session: what a command that only compares may not make or
/// change.
const LEFT: &str = "SELECT 'publication', pubname::text FROM pg_publication
    UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database()
    UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'relation', c.oid::regclass::text || ' ' || relfilenode || ' ' || coalesce(relacl::text, '') FROM pg_class c
        JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    UNION ALL SELECT 'function', p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace <> 'pg_catalog'::regnamespace
        AND pronamespace <> 'information_schema'::regnamespace
    UNION ALL SELECT 'trigger', tgname FROM pg_trigger
    UNION ALL SELECT 'session', pid::text FROM pg_stat_activity WHERE application_name LIKE 'cdc%' AND datname = current_database()
    ORDER BY 1, 2";

/// The rows of the lookup with where they stand and who wrote them: one that was written again
/// differs.
const LOOKUP_ROWS: &str = "SELECT ctid, xmin, l.* FROM labels_lookup l ORDER BY ctid";

async fn left(source: &Client, target: &Client) -> Vec<Vec<String>> {
    vec![rows(source, LEFT).await, rows(target, LEFT).await]
}

/// What a command printed to its standard output and its standard error, and its exit code.
async fn run(pair: &Pair, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Cdc::command(pair, arguments);
    command.env("CDC_LOG", "warn");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
    )
}

/// The command's sessions may be gone some milliseconds after the command.
async fn wait_left(source: &Client, target: &Client, expected: &[Vec<String>]) {
    wait_until("nothing is left behind", async || {
        let seen = left(source, target).await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("expected {expected:?}, found {seen:?}"))
        }
    })
    .await;
}

/// An event-driven sync has kept the lookup, and has missed this and that.
const MISSED: &str = "INSERT INTO labels_lookup (code, label, display_name) VALUES ('DR', 'Dr.', 'Doctor'), ('MRS', 'old', 'Missus'),
    ('GONE', 'g', 'g')";
const MORE_LABELS: &str = "DROP INDEX labels_code_live;
    INSERT INTO labels (code, label, display_name) VALUES ('DR', 'Dr.', 'Doctor'), ('LONG', repeat('x', 40), 'l'), ('', 'empty', 'e');
    INSERT INTO labels (code, label, display_name, deleted_at) VALUES ('GONE', 'g', 'g', now())";
const FOUND: &str =
    "public.labels_lookup: 1 missing, 1 extra, 1 different, 1 right, 2 rejected, 1 duplicate
  missing: MR
  extra: GONE
  different: MRS
  rejected:  (23514 labels_lookup_code_not_empty)
  rejected: LONG (22001 label)
";

/// It made publication, slot and bookkeeping, wrote the first copy into the lookup, and said that
/// nothing differs.
#[tokio::test]
async fn before_the_first_run_a_dry_run_tells_what_is_wrong_and_leaves_nothing() {
    let (pair, source, target) = labels_pair().await;
    source.batch_execute(MORE_LABELS).await.unwrap();
    target
        .batch_execute(&format!(
            "ALTER TABLE labels_lookup ALTER label TYPE varchar(20); {MISSED}"
        ))
        .await
        .unwrap();
    let (before, shown) = (
        left(&source, &target).await,
        rows(&target, LOOKUP_ROWS).await,
    );
    for command in [&["verify"][..], &["resync", "--dry-run"]] {
        let (text, notes, code) = run(&pair, command).await;
        assert_eq!((text.as_str(), code), (FOUND, Some(1)), "{notes}");
        assert!(notes.contains("No running cdc was found"), "{notes}");
        wait_left(&source, &target, &before).await;
        assert_eq!(rows(&target, LOOKUP_ROWS).await, shown);
    }
    let (text, ..) = run(&pair, &["verify", "--json", "--limit", "1"]).await;
    let found: Value = serde_json::from_str(&text).unwrap();
    let found = &found["public.labels_lookup"];
    let counts = [
        "missing",
        "extra",
        "different",
        "same",
        "rejected",
        "waiting",
        "changing",
    ]
    .map(|kind| found[kind].as_i64());
    assert_eq!(counts, [1, 1, 1, 1, 2, 1, 0].map(Some), "{found}");
    assert_eq!(
        found["keys"]["missing"],
        serde_json::json!(["MR"]),
        "{found}"
    );
    assert_eq!(found["rejections"].as_array().unwrap().len(), 1, "{found}");
    let (status, ..) = run(&pair, &["status"]).await;
    assert!(status.starts_with("NEW "), "{status}");
    // Where everything is right it says so, at once.
    target
        .batch_execute("DELETE FROM labels_lookup WHERE code = 'GONE'; UPDATE labels_lookup SET label = 'Mrs.' WHERE code = 'MRS';
            INSERT INTO labels_lookup (code, label, display_name) VALUES ('MR', 'Mr.', 'Mister')")
        .await
        .unwrap();
    source
        .batch_execute("DELETE FROM labels WHERE code IN ('LONG', '')")
        .await
        .unwrap();
    let (text, _, code) = run(&pair, &["verify"]).await;
    let right = "public.labels_lookup: 0 missing, 0 extra, 0 different, 3 right, 1 duplicate\n";
    assert_eq!((text.as_str(), code), (right, Some(0)));
    wait_left(&source, &target, &before).await;
}

/// A source whose WAL does not know of logical decoding, and roles that may only read.
#[tokio::test]
async fn a_dry_run_needs_to_read_and_to_make_temporary_tables_and_says_what_is_missing() {
    let options = Options {
        name: "plain-source".to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        settings: vec![("wal_level".to_owned(), "replica".to_owned())],
        ..Options::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let (mut pair, source, target) = labels_pair_on(&cluster, support::target()).await;
    let reader = format!("reader_{}", pair.target_database);
    let database = &pair.target_database;
    for client in [&source, &target] {
        client
            .batch_execute(&format!("CREATE ROLE {reader} LOGIN"))
            .await
            .unwrap();
    }
    target
        .batch_execute(&format!(
            "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC; {MISSED}"
        ))
        .await
        .unwrap();
    let before = left(&source, &target).await;
    pair.source_url = pair.source_url.replace("postgres@", &format!("{reader}@"));
    pair.target_url = pair.target_url.replace("postgres@", &format!("{reader}@"));
    let steps = [
        (
            "may not make temporary tables",
            &target,
            format!("GRANT TEMPORARY ON DATABASE {database} TO {reader}"),
        ),
        (
            "table \"public.labels\"",
            &source,
            format!("GRANT SELECT ON labels TO {reader}"),
        ),
        (
            "lookup table \"public.labels_lookup\"",
            &target,
            format!("GRANT SELECT ON labels_lookup TO {reader}"),
        ),
    ];
    for (lacks, client, grant) in steps {
        let (text, notes, code) = run(&pair, &["verify"]).await;
        assert_eq!((text.as_str(), code), ("", Some(2)), "{notes}");
        let hint = grant.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert!(
            notes.contains(lacks) && notes.contains(&hint),
            "{lacks}, {hint}: {notes}"
        );
        client.batch_execute(&grant).await.unwrap();
    }
    let (text, notes, code) = run(&pair, &["verify"]).await;
    let found = "public.labels_lookup: 1 missing, 1 extra, 1 different, 1 right\n";
    assert!(text.starts_with(found) && code == Some(1), "{text}{notes}");
    // Without what the grants have changed.
    let unchanged = |sides: &[Vec<String>]| {
        let side = |rows: &Vec<String>| {
            rows.iter()
                .filter(|row| !row.contains("labels"))
                .cloned()
                .collect()
        };
        sides.iter().map(side).collect::<Vec<Vec<String>>>()
    };
    wait_until("nothing is left behind", async || {
        let seen = unchanged(&left(&source, &target).await);
        if seen == unchanged(&before) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    // The next test's database is on the same server.
    target
        .batch_execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn without_a_lookup_table_everything_is_missing_and_none_is_made() {
    let (pair, source, target) = labels_pair().await;
    target
        .batch_execute("DROP TABLE labels_lookup")
        .await
        .unwrap();
    let before = left(&source, &target).await;
    let (text, notes, code) = run(&pair, &["verify", "--limit", "1"]).await;
    let found = "public.labels_lookup: 3 missing, 0 extra, 0 different, 0 right
  missing: DR
  missing: 2 more (--limit N names N of them)
  note: the lookup table does not exist: everything is missing. `cdc run` makes it.
";
    assert_eq!((text.as_str(), code), (found, Some(1)), "{notes}");
    wait_left(&source, &target, &before).await;
}

/// What `cdc run` would refuse can be compared all the same; the notes say that it would.
#[tokio::test]
async fn a_lookup_of_any_make_is_compared_as_it_is() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += "
[[read_model]]
source = 'public.things'
target = 'public.things_lookup'
key = ['code']
columns = { code = 'code', amount = 'amount', day = 'day', note = 'note' }
";
    pair.config += LABELS_MODEL;
    source
        .batch_execute(
            "CREATE TABLE things (code text, amount text, day text, note text);
             INSERT INTO things VALUES ('1', '1.50', '2026-01-02', 'a'), ('02', '2', '2026-01-03', 'b'), ('3', '3', '2026-01-04', 'c'),
                 ('4', 'many', '2026-01-05', 'd'), ('5', '5', '2026-01-06', 'odd'), ('6', '6', '2026-01-07', NULL)",
        )
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE DOMAIN even AS text CHECK (VALUE <> 'odd');
             CREATE UNLOGGED TABLE things_lookup (id serial PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now(), code int, p1 text NOT NULL DEFAULT 'x',
                 amount numeric(10, 2), day date, note even NOT NULL, twice int GENERATED ALWAYS AS (code * 2) STORED,
                 CHECK (p1 <> '' AND code > 0));
             INSERT INTO things_lookup (code, amount, day, note) VALUES (1, 1.5, '2026-01-02', 'a'), (2, 2, '2026-01-04', 'b'),
                 (3, 3, '2026-01-04', 'c'), (3, 3, '2026-01-04', 'c'), (NULL, 7, NULL, 'null')",
        )
        .await
        .unwrap();
    target
        .batch_execute("INSERT INTO labels_lookup (code, label, display_name) VALUES ('DR', 'Dr.', 'Doctor'), ('MR', 'Mr.', 'Mister'), ('MRS', 'Mrs.', 'Missus')")
        .await
        .unwrap();
    let before = left(&source, &target).await;
    let (text, notes, code) = run(&pair, &["verify"]).await;
    let mut lines = text.lines();
    let expected = [
        "public.labels_lookup: 0 missing, 0 extra, 0 different, 3 right",
        "public.things_lookup: 0 missing, 2 extra, 1 different, 2 right, 3 rejected",
        "  extra: ",
        "  extra: 3",
        "  different: 2",
        "  rejected: 4 (22P02 amount)",
        "  rejected: 5 (23514 even_check)",
        "  rejected: 6 (23502 note)",
    ];
    let seen: Vec<&str> = lines.by_ref().take(expected.len()).collect();
    assert_eq!((seen, code), (expected.to_vec(), Some(1)), "{text}{notes}");
    let notes: Vec<&str> = lines.collect();
    assert_eq!(notes.len(), 2, "{text}");
    assert!(
        notes[0].contains("`cdc run` refuses") && notes[0].contains("primary key"),
        "{text}"
    );
    assert!(
        notes[1].contains("`cdc run` refuses") && notes[1].contains("unlogged"),
        "{text}"
    );
    wait_left(&source, &target, &before).await;
}

/// One read model that cannot be compared leaves the others be.
#[tokio::test]
async fn of_several_read_models_those_that_can_be_compared_are() {
    let (mut pair, _source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += "
[[read_model]]
source = 'public.nowhere'
target = 'public.nowhere_lookup'
key = ['code']
columns = ['code']
";
    target.batch_execute(MISSED).await.unwrap();
    let (text, notes, code) = run(&pair, &["verify"]).await;
    assert!(
        text.starts_with("public.labels_lookup: 1 missing, 1 extra, 1 different, 1 right\n"),
        "{text}"
    );
    assert!(
        notes.contains("table \"public.nowhere\" does not exist at the source"),
        "{notes}"
    );
    assert_eq!(code, Some(2));
    let (text, _, code) = run(&pair, &["verify", "public.labels_lookup"]).await;
    assert!(
        text.starts_with("public.labels_lookup: 1 missing") && code == Some(1),
        "{text}"
    );
}

/// An event-driven sync is some seconds behind.
#[tokio::test]
async fn changes_under_way_are_no_differences() {
    let (pair, source, target) = labels_pair().await;
    let label = "INSERT INTO labels (code, label, display_name) VALUES";
    let shown = "INSERT INTO labels_lookup (code, label, display_name) VALUES";
    let same = "('DR', 'Dr.', 'Doctor'), ('MRS', 'Mrs.', 'Missus'), ('WRONG', 'w', 'w'), ('MOVES', 'm', 'm'), ('BACK', 'b', 'b')";
    target
        .batch_execute(&format!(
            "{shown} {same}, ('LATE', 'l', 'l'), ('EXTRA', 'e', 'e')"
        ))
        .await
        .unwrap();
    // On their way at the first look: an insert (MR), a delete (LATE), updates (DR, MOVES, BACK).
    // WRONG is wrong.
    source
        .batch_execute(&format!(
            "{label} ('WRONG', 'right', 'w'), ('MOVES', 'moved', 'm'), ('BACK', 'there', 'b'), ('EXTRA', 'e', 'e');
             UPDATE labels SET label = 'Doc' WHERE code = 'DR'; DELETE FROM labels WHERE code = 'EXTRA'"
        ))
        .await
        .unwrap();
    let mut cdc = Cdc::start(&mut Cdc::command(&pair, &["verify", "--json"]));
    wait_rows(
        &target,
        "SELECT count(*) FROM pg_class WHERE relname = 'differing_1_1'",
        &["1"],
    )
    .await;
    wait_log(&cdc, "what differs is looked at again").await;
    target
        .batch_execute(&format!(
            "{shown} ('MR', 'Mr.', 'Mister'); DELETE FROM labels_lookup WHERE code = 'LATE';
             UPDATE labels_lookup SET label = 'Doc' WHERE code = 'DR'; UPDATE labels_lookup SET label = 'there' WHERE code = 'MOVES'"
        ))
        .await
        .unwrap();
    // One changes again at the source, before the first change has arrived, and one is new there.
    source
        .batch_execute(&format!(
            "UPDATE labels SET label = 'again' WHERE code = 'BACK'; {label} ('NEW', 'n', 'n')"
        ))
        .await
        .unwrap();
    assert_eq!(cdc.wait().await.code(), Some(1));
    let log = cdc.log();
    let found = log
        .lines()
        .find(|line| line.starts_with("{\"public."))
        .unwrap_or_else(|| panic!("{log}"));
    let found: Value = serde_json::from_str(found).unwrap();
    let found = &found["public.labels_lookup"];
    assert_eq!(
        found["keys"]["different"],
        serde_json::json!(["WRONG"]),
        "{found}"
    );
    assert_eq!(
        found["keys"]["extra"],
        serde_json::json!(["EXTRA"]),
        "{found}"
    );
    let counts =
        ["missing", "extra", "different", "same", "changing"].map(|kind| found[kind].as_i64());
    // MOVES, BACK and NEW: neither right nor known to be wrong.
    assert_eq!(counts, [0, 1, 1, 3, 3].map(Some), "{found}");
}

const TEMPORARY: &str =
    "SELECT count(*) > 0 FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'";

#[tokio::test]
async fn a_dry_run_that_is_interrupted_leaves_nothing() {
    let (pair, source, target) = labels_pair().await;
    target.batch_execute(MISSED).await.unwrap();
    let (before, shown) = (
        left(&source, &target).await,
        rows(&target, LOOKUP_ROWS).await,
    );
    for how in ["interrupt", "kill", "lost"] {
        // It waits before it looks a second time.
        let mut cdc = Cdc::start(&mut Cdc::command(&pair, &["verify"]));
        wait_rows(&target, TEMPORARY, &["t"]).await;
        match how {
            "interrupt" => assert_eq!(cdc.stop(Signal::Int).await.code(), Some(1)),
            "kill" => assert!(!cdc.stop(Signal::Kill).await.success()),
            _ => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc%' AND datname = current_database()";
                value(&target, end).await;
                // A session that was lost is made again.
                assert_eq!(cdc.wait().await.code(), Some(1));
                assert!(
                    cdc.log().contains("1 missing, 1 extra, 1 different"),
                    "{}",
                    cdc.log()
                );
            }
        }
        wait_left(&source, &target, &before).await;
        assert_eq!(rows(&target, LOOKUP_ROWS).await, shown, "{how}");
        assert_eq!(rows(&target, TEMPORARY).await, ["f"], "{how}");
    }
}

/// It ran the engine: rows were written, the checkpoint and the slot went on.
#[tokio::test]
async fn where_cdc_has_run_and_does_not_run_now_a_dry_run_changes_nothing() {
    let (pair, source, target) = labels_pair().await;
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    source
        .batch_execute("UPDATE labels SET label = 'later' WHERE code = 'MR'")
        .await
        .unwrap();
    on_free_slot(&source, "SELECT 1").await;
    let state = async || {
        vec![
            rows(&target, "SELECT ctid, xmin, p.* FROM cdc.pipeline p").await,
            rows(&target, "SELECT ctid, xmin, c.* FROM cdc.checkpoint c").await,
            rows(&target, "SELECT ctid, xmin, m.* FROM cdc.read_model m").await,
            rows(&target, "SELECT ctid, xmin, r.* FROM cdc.resync r").await,
            rows(&source, "SELECT slot_name, confirmed_flush_lsn, restart_lsn FROM pg_replication_slots WHERE database = current_database()").await,
            rows(&target, LOOKUP_ROWS).await,
        ]
    };
    let before = (left(&source, &target).await, state().await);
    let (text, notes, code) = run(&pair, &["verify"]).await;
    let found = "public.labels_lookup: 0 missing, 0 extra, 1 different, 2 right\n  different: MR\n";
    assert_eq!((text.as_str(), code), (found, Some(1)), "{notes}");
    assert!(
        notes.contains("No running cdc was found") && notes.contains("last brought up to date"),
        "{notes}"
    );
    wait_left(&source, &target, &before.0).await;
    assert_eq!(state().await, before.1);
    // Once it runs, nothing is on its way any more.
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&_cdc, "\"message\":\"streaming\"").await;
    let (text, notes, code) = run(&pair, &["verify"]).await;
    let right = "public.labels_lookup: 0 missing, 0 extra, 0 different, 3 right\n";
    assert_eq!((text.as_str(), code), (right, Some(0)), "{notes}");
    assert!(notes.contains("A running cdc carries it out"), "{notes}");
}

/// A migration of the source's table that waits for the dry run's lock gets it.
#[tokio::test]
async fn a_dry_run_gives_way_to_a_lock_at_the_source() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += &LABELS_MODEL.replace("'public.labels'", "'public.slow_labels'");
    source
        .batch_execute(
            "CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN true; END';
             CREATE VIEW slow_labels AS SELECT * FROM labels WHERE slowly()",
        )
        .await
        .unwrap();
    let holder = pg(&pair.source_url).await;
    holder
        .batch_execute("SELECT pg_advisory_lock(4711)")
        .await
        .unwrap();
    let mut cdc = Cdc::start(&mut Cdc::command(&pair, &["verify"]));
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%slow_labels%' AND wait_event = 'advisory' AND datname = current_database()";
    wait_rows(&source, reads, &["1"]).await;
    let migration = source.batch_execute("ALTER TABLE labels ADD note text");
    let migrated = tokio::time::timeout(support::DEADLINE, migration).await;
    migrated.unwrap().unwrap();
    wait_log(&cdc, "gave way to a session that waits for table").await;
    holder
        .batch_execute("SELECT pg_advisory_unlock(4711)")
        .await
        .unwrap();
    assert_eq!(cdc.wait().await.code(), Some(1));
    assert!(
        cdc.log().contains("public.labels_lookup: 3 missing"),
        "{}",
        cdc.log()
    );
    wait_rows(&target, TEMPORARY, &["f"]).await;
}
