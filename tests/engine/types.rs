//! Every type, byte for byte as the source's own text: in the first copy, as an insert and as an
//! update in the stream; with settings of role and database on both sides that would change each
//! text, or end each session.

use std::fmt::Write as _;

use tokio_postgres::Client;

use super::values::{MULTIRANGES, TYPES, VALUES};
use crate::support::{
    Cdc, Pair, database_pair, pg, rows, server_version, value, wait_log, wait_rows, wait_until,
};

/// What text is compared under.
const PLAIN: &str =
    "SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = UTC; SET extra_float_digits = 3;
    SET bytea_output = hex; SET lc_monetary = 'C'; SET search_path = ''; SET quote_all_identifiers = off;";

/// Settings that nobody in his right mind gives a role, for this database alone.
async fn odd_role(client: &Client, database: &str, role: &str, settings: &[(&str, &str)]) {
    let version = server_version(client).await;
    let mut sql = format!("CREATE ROLE {role} SUPERUSER LOGIN;");
    for (name, value) in settings {
        let since = match *name {
            "idle_session_timeout" => 140_000,
            "transaction_timeout" => 170_000,
            _ => 0,
        };
        if version >= since {
            let _ = write!(
                sql,
                "ALTER ROLE {role} IN DATABASE {database} SET {name} = {value};"
            );
        }
    }
    client.batch_execute(&sql).await.unwrap();
}

const TIMEOUTS: [(&str, &str); 5] = [
    ("statement_timeout", "'1ms'"),
    ("lock_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'1ms'"),
    ("idle_session_timeout", "'1s'"),
    ("transaction_timeout", "'1s'"),
];

/// Both databases, their URLs with a role that has odd settings, and plain connections to look
/// with.
async fn odd_pair(
    source_settings: &[(&str, &str)],
    target_settings: &[(&str, &str)],
) -> (Pair, Client, Client) {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    for (client, database, url, settings) in [
        (
            &source,
            &pair.source_database,
            &mut pair.source_url,
            source_settings,
        ),
        (
            &target,
            &pair.target_database,
            &mut pair.target_url,
            target_settings,
        ),
    ] {
        let role = format!("odd_{}", pair.slot);
        odd_role(client, database, &role, &[settings, &TIMEOUTS].concat()).await;
        *url = url.replace("postgres@", &format!("{role}@"));
        client.batch_execute(PLAIN).await.unwrap();
    }
    (pair, source, target)
}

/// Waits until both tables have the same text in every column, and tells the first row and column
/// that differ.
async fn wait_same(source: &Client, target: &Client, names: &str, table: &str) {
    let query = |table: &str| format!("SELECT {names} FROM public.{table} ORDER BY 1");
    wait_until("every value is the same", async || {
        let (from, to) = (
            rows(source, &query(table)).await,
            rows(target, &query(&format!("{table}_lookup"))).await,
        );
        for (from, to) in from.iter().zip(&to) {
            if from != to {
                let of = |row: &str| row.split('|').map(str::to_owned).collect::<Vec<_>>();
                let names = names.split(", ");
                let differs = names
                    .zip(of(from))
                    .zip(of(to))
                    .find(|((_, from), to)| from != to);
                return Err(format!("{differs:?}"));
            }
        }
        if from.len() == to.len() {
            Ok(())
        } else {
            Err(format!("{} rows of {}", to.len(), from.len()))
        }
    })
    .await;
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[tokio::test]
async fn every_type_comes_as_the_sources_own_text() {
    let (mut pair, source, target) = odd_pair(
        &[
            ("DateStyle", "'SQL, DMY'"),
            ("IntervalStyle", "'sql_standard'"),
            ("TimeZone", "'Asia/Kathmandu'"),
            ("extra_float_digits", "-15"),
            ("bytea_output", "'escape'"),
            ("lc_monetary", "'C.utf8'"),
            ("search_path", "shop, public"),
            ("quote_all_identifiers", "on"),
            ("default_transaction_isolation", "'serializable'"),
        ],
        &[
            ("DateStyle", "'German, DMY'"),
            ("IntervalStyle", "'iso_8601'"),
            ("TimeZone", "'America/St_Johns'"),
            ("extra_float_digits", "-15"),
            ("bytea_output", "'escape'"),
            ("search_path", "shop, public"),
            ("array_nulls", "off"),
            ("xmloption", "'document'"),
            ("transform_null_equals", "on"),
            ("standard_conforming_strings", "off"),
            ("default_transaction_isolation", "'serializable'"),
        ],
    )
    .await;
    let has_multiranges =
        value(&source, "SELECT to_regtype('int4multirange') IS NOT NULL").await == "t";
    let digits = format!("{}.{}", "9".repeat(600), "7".repeat(400));
    let mut values: Vec<(&str, Vec<&str>)> = VALUES
        .iter()
        .map(|(of, values)| (*of, values.to_vec()))
        .collect();
    values.push(("numeric", vec![&digits]));
    if has_multiranges {
        values.extend(
            MULTIRANGES
                .iter()
                .map(|(of, values)| (*of, values.to_vec())),
        );
    }
    // Few columns go as one statement, many by COPY.
    let mut tables = vec![("wide", values.clone())];
    let narrow = ["t0", "t1", "t2", "t3", "t4", "t5", "t6"];
    tables.extend(
        narrow.into_iter().zip(
            values
                .chunks(values.len().div_ceil(narrow.len()))
                .map(<[_]>::to_vec),
        ),
    );
    for client in [&source, &target] {
        client
            .batch_execute(&format!("SET search_path = public; {TYPES}"))
            .await
            .unwrap();
    }
    let most = values.iter().map(|(_, values)| values.len()).max().unwrap();
    let mut updates = Vec::new();
    for (table, columns) in &tables {
        let names: Vec<String> = (1..=columns.len()).map(|n| format!("c{n}")).collect();
        let definitions = names
            .iter()
            .zip(columns)
            .map(|(name, (of, _))| format!("{name} {of}"));
        let mut sql = format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, {});",
            definitions.collect::<Vec<_>>().join(", ")
        );
        // Row 0 has NULLs, the others each value in its turn.
        for row in 0..=most {
            let cells = columns.iter().map(|(of, values)| match (row, *of) {
                (0, "shop.present") => "'sad'".to_owned(),
                (0, _) => "NULL".to_owned(),
                _ => quoted(values[row % values.len()]),
            });
            let _ = write!(
                sql,
                "INSERT INTO {table} VALUES ({row}, {});",
                cells.collect::<Vec<_>>().join(", ")
            );
        }
        source
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        let all = names.join(", ");
        let rotated: Vec<String> = names
            .iter()
            .map(|name| format!("{name} = b.{name}"))
            .collect();
        updates.push(format!(
            "INSERT INTO {table} SELECT id + 100, {all} FROM {table};
             UPDATE {table} a SET {} FROM {table} b WHERE a.id < 100 AND b.id = (a.id + 1) % {}",
            rotated.join(", "),
            most + 1
        ));
        let _ = write!(
            pair.config,
            "[[read_model]]\nsource = 'public.{table}'\ntarget = 'public.{table}_lookup'\nkey = ['id']\ncolumns = [\"id\", {}]\n",
            names
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    for client in [&source, &target] {
        client.batch_execute("SET search_path = ''").await.unwrap();
    }
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    let names = |columns: usize| {
        let names: String = (1..=columns).map(|n| format!(", c{n}")).collect();
        format!("id{names}")
    };
    for (table, columns) in &tables {
        wait_same(&source, &target, &names(columns.len()), table).await;
    }
    source
        .batch_execute("SET search_path = public")
        .await
        .unwrap();
    for update in &updates {
        source.batch_execute(update).await.unwrap();
    }
    source.batch_execute("SET search_path = ''").await.unwrap();
    for (table, columns) in &tables {
        wait_same(&source, &target, &names(columns.len()), table).await;
    }
    // Compared in full: nothing differs.
    let resync = Cdc::output(&pair, &["resync", "--dry-run"]);
    let text = String::from_utf8_lossy(&resync.stdout).into_owned();
    assert!(resync.status.success(), "{resync:?}");
    assert_eq!(
        text.matches("0 missing, 0 extra, 0 different").count(),
        8,
        "{text}"
    );
    assert_eq!(crate::support::count_log(&cdc, "trying again"), 0);
}

/// A read model of one table with these columns.
fn model(columns: &[&str]) -> String {
    format!(
        "[[read_model]]\nsource = 'public.t'\ntarget = 'public.t_lookup'\nkey = ['id']\ncolumns = {columns:?}\n"
    )
}

#[tokio::test]
async fn a_change_that_only_bytes_show_is_written() {
    let (mut pair, source, target) = odd_pair(&[], &[]).await;
    let changes = [
        ("numeric", "1.0", "1.00"),
        ("citext", "mr", "MR"),
        ("interval", "1 day", "24:00:00"),
        ("json", "{\"a\":1}", "{\"a\": 1}"),
        ("float8", "0", "-0"),
        ("numeric[]", "{1.0}", "{1.00}"),
        ("timetz", "12:00:00+00", "13:00:00+01"),
        ("numrange", "[1.0,2)", "[1.00,2)"),
    ];
    let names: Vec<String> = (1..=changes.len()).map(|n| format!("c{n}")).collect();
    let columns: Vec<&str> = std::iter::once("id")
        .chain(names.iter().map(String::as_str))
        .collect();
    let definitions: Vec<String> = changes
        .iter()
        .zip(&names)
        .map(|((of, ..), name)| format!("{name} {of}"))
        .collect();
    let before: Vec<String> = changes
        .iter()
        .map(|(_, before, _)| quoted(before))
        .collect();
    for client in [&source, &target] {
        client
            .batch_execute("SET search_path = public; CREATE EXTENSION citext")
            .await
            .unwrap();
    }
    source
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, {}); INSERT INTO t VALUES (1, {})",
            definitions.join(", "),
            before.join(", ")
        ))
        .await
        .unwrap();
    pair.config += &model(&columns);
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    for ((of, _, after), name) in changes.iter().zip(&names) {
        source
            .batch_execute(&format!("UPDATE t SET {name} = {}", quoted(after)))
            .await
            .unwrap_or_else(|error| panic!("{of}: {error:?}"));
        wait_same(&source, &target, &columns.join(", "), "t").await;
        // The time zone of timetz is shown as it is; all the others are as they were written.
        assert_eq!(
            value(&target, &format!("SELECT {name} FROM t_lookup")).await,
            *after,
            "{of}"
        );
    }
}

/// Type at the source and in the lookup, two values, and how the lookup shows them.
type Conversion = (
    &'static str,
    &'static str,
    [&'static str; 2],
    [&'static str; 2],
);

#[tokio::test]
async fn another_type_of_the_lookup_takes_the_text() {
    let (mut pair, source, target) = odd_pair(
        &[("lc_monetary", "'C.utf8'")],
        &[("DateStyle", "'SQL, DMY'")],
    )
    .await;
    let columns: [Conversion; 16] = [
        ("text", "varchar(50)", ["ä", "b "], ["ä", "b "]),
        ("mood", "text", ["sad", "ok"], ["sad", "ok"]),
        ("int", "bigint", ["-1", "2"], ["-1", "2"]),
        ("varchar(3)", "char(5)", ["abc", ""], ["abc  ", "     "]),
        ("char(4)", "text", ["ab", "c"], ["ab  ", "c   "]),
        ("real", "double precision", ["0.1", "NaN"], ["0.1", "NaN"]),
        ("numeric", "numeric(6,2)", ["1.5", "2.25"], ["1.50", "2.25"]),
        (
            "json",
            "jsonb",
            ["{\"b\" : 1,\"a\":2}", "null"],
            ["{\"a\": 2, \"b\": 1}", "null"],
        ),
        ("jsonb", "json", ["{\"b\":1}", "[]"], ["{\"b\": 1}", "[]"]),
        (
            "date",
            "timestamptz",
            ["2026-02-03", "infinity"],
            ["2026-02-03 00:00:00+00", "infinity"],
        ),
        (
            "timestamptz",
            "text",
            ["2026-02-03 00:00:00+05", "0044-03-15 00:00:00+00 BC"],
            ["2026-02-02 19:00:00+00", "0044-03-15 00:00:00+00 BC"],
        ),
        ("bytea", "text", [r"\x00ff", r"\x"], [r"\x00ff", r"\x"]),
        (
            "uuid",
            "text",
            [
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ],
            [
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ],
        ),
        ("text", "int[]", ["{1}", "{}"], ["{1}", "{}"]),
        ("int4range", "text", ["[1,2]", "empty"], ["[1,3)", "empty"]),
        ("text", "boolean", ["yes", "0"], ["t", "f"]),
    ];
    let define = |of: fn(&Conversion) -> &'static str| {
        let columns = columns
            .iter()
            .zip(1..)
            .map(|(column, n)| format!(", c{n} {}", of(column)));
        columns.collect::<String>()
    };
    let cells = |which: usize| {
        let cells = columns
            .iter()
            .map(|(_, _, values, _)| format!(", {}", quoted(values[which])));
        cells.collect::<String>()
    };
    source
        .batch_execute(&format!(
            "SET search_path = public; CREATE TYPE mood AS ENUM ('sad', 'ok');
             CREATE TABLE t (id int PRIMARY KEY{}); INSERT INTO t VALUES (1{})",
            define(|column| column.0),
            cells(0)
        ))
        .await
        .unwrap();
    target
        .batch_execute(&format!(
            "SET search_path = public; CREATE TABLE t_lookup (id int PRIMARY KEY{})",
            define(|column| column.1)
        ))
        .await
        .unwrap();
    let names: Vec<String> = (1..=columns.len()).map(|n| format!("c{n}")).collect();
    let all: Vec<&str> = std::iter::once("id")
        .chain(names.iter().map(String::as_str))
        .collect();
    pair.config += &model(&all);
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    source
        .batch_execute(&format!(
            "INSERT INTO t VALUES (2{}), (3{})",
            cells(1),
            cells(0)
        ))
        .await
        .unwrap();
    let assigned: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|((_, _, values, _), name)| format!("{name} = {}", quoted(values[1])))
        .collect();
    source
        .batch_execute(&format!(
            "UPDATE t SET {} WHERE id = 3",
            assigned.join(", ")
        ))
        .await
        .unwrap();
    let shown = |which: usize| {
        columns
            .iter()
            .map(|column| format!("|{}", column.3[which]))
            .collect::<String>()
    };
    let expected = [
        format!("1{}", shown(0)),
        format!("2{}", shown(1)),
        format!("3{}", shown(1)),
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    wait_rows(&target, "SELECT * FROM t_lookup ORDER BY id", &expected).await;
}

#[tokio::test]
async fn types_that_cannot_fit_are_found_before_the_first_row() {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, a boolean, b timestamptz, c text)")
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE TABLE t_lookup (id int PRIMARY KEY, a int, b numeric, c varchar(50))",
        )
        .await
        .unwrap();
    pair.config += &model(&["id", "a", "b", "c"]);
    let check = Cdc::output(&pair, &["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    for part in [
        "error: lookup \"public.t_lookup\": column \"a\" is integer, the source's is boolean",
        "error: lookup \"public.t_lookup\": column \"b\" is numeric, the source's is timestamp with time zone",
        "values of more than 50 characters are rejected, but for blanks at their end, which are cut",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A copy could read it, but the stream carries none, or on 18 only those that somebody publishes
/// by an option.
#[tokio::test]
async fn a_generated_column_is_refused_with_the_reason() {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let version = server_version(&source).await;
    let kinds: &[&str] = if version >= 180_000 {
        &["STORED", "VIRTUAL"]
    } else {
        &["STORED"]
    };
    source
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        .await
        .unwrap();
    let config = std::mem::take(&mut pair.config);
    for kind in kinds {
        source
            .batch_execute(&format!(
                "ALTER TABLE t ADD twice int GENERATED ALWAYS AS (v * 2) {kind}, ADD gone boolean GENERATED ALWAYS AS (v < 0) {kind}"
            ))
            .await
            .unwrap();
        let soft_delete = model(&["id", "v"]) + "soft_delete = 'gone'\n";
        for (column, more) in [("twice", model(&["id", "twice"])), ("gone", soft_delete)] {
            pair.config = format!("{config}{more}");
            let reason = format!("column \"{column}\" is generated, so it is not in the stream");
            let run = Cdc::output(&pair, &["run"]);
            let text = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!(run.status.code(), Some(2), "{kind}: {text}");
            assert!(text.contains(&reason), "{kind}: {text}");
            let check = Cdc::output(&pair, &["check"]);
            let text = String::from_utf8_lossy(&check.stdout).into_owned();
            assert_eq!(check.status.code(), Some(1), "{kind}: {text}");
            assert!(
                text.contains("is generated, so it is not in the stream"),
                "{kind}: {text}"
            );
        }
        source
            .batch_execute("ALTER TABLE t DROP twice, DROP gone")
            .await
            .unwrap();
    }
}

/// The stream of another's publication may have more columns than the catalog of an older server
/// knows of.
#[tokio::test]
async fn published_generated_columns_do_not_disturb_the_others() {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    let version = server_version(&source).await;
    if version < 180_000 {
        return;
    }
    source
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, s int GENERATED ALWAYS AS (id + 1) STORED, a text,
                 i int GENERATED ALWAYS AS (id + 2) VIRTUAL, b text);
             INSERT INTO t (id, a, b) VALUES (1, 'a', 'b');
             CREATE PUBLICATION cdc FOR TABLE t WITH (publish_generated_columns = stored)",
        )
        .await
        .unwrap();
    pair.config += &model(&["id", "b", "a"]);
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    source
        .batch_execute(
            "UPDATE t SET b = 'B'; INSERT INTO t (id, a, b) VALUES (2, 'c', 'd'); DELETE FROM t WHERE id = 1",
        )
        .await
        .unwrap();
    wait_rows(&target, "SELECT id, a, b FROM t_lookup", &["2|c|d"]).await;
}
