//! Source rows that have one key by the lookup's rule, though not by the source's; and tables that
//! are emptied together.

use std::fmt::Write;

use tokio_postgres::Client;

use crate::support::{
    Cdc, Signal, count_log, database_pair, pg, rows, value, wait_equal, wait_log, wait_rows,
};

/// A lookup's type for keys that are text at the source: how the source can tell which are one key
/// to it, and four of those.
struct Rule {
    name: &'static str,
    key_type: &'static str,
    one_key: &'static str,
    keys: [&'static str; 4],
    other: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "citext",
        key_type: "citext",
        one_key: "lower(k)",
        keys: ["mr", "Mr", "MR", "mR"],
        other: "Dr",
    },
    Rule {
        name: "number",
        key_type: "numeric",
        one_key: "k::numeric",
        keys: ["1.000", "1.0", "1", "1.00"],
        other: "2.50",
    },
    Rule {
        name: "padded",
        key_type: "char(6)",
        one_key: "rtrim(k)",
        keys: ["ab  ", "ab", "ab ", "ab   "],
        other: "b",
    },
    Rule {
        name: "icu",
        key_type: "text COLLATE any_case",
        one_key: "lower(k)",
        keys: ["straße", "Straße", "STRAßE", "sTRAße"],
        other: "Weg",
    },
];

/// How the stream names an old row, and the order in which the first one is shown.
const IDENTITIES: [(&str, &str, &str); 3] = [
    ("id", "PRIMARY KEY (id)", "id"),
    ("key", "PRIMARY KEY (k)", "k COLLATE \"C\""),
    ("full", "UNIQUE (k)", "k COLLATE \"C\""),
];

/// Each statement for a table `{t}` with the keys `{a}` to `{d}`, which are one, and another one,
/// `{o}`.
const STEPS: [&str; 12] = [
    "DELETE FROM {t} WHERE id = 9",
    "INSERT INTO {t} VALUES (5, '{d}', 'five')",
    "UPDATE {t} SET v = v || '.'",
    // The one that is shown takes another key, and comes back beside a delete.
    "UPDATE {t} SET k = '{o}' WHERE id = 5",
    "BEGIN; UPDATE {t} SET k = '{c}' WHERE id = 5; DELETE FROM {t} WHERE id = 10; COMMIT",
    // Spellings that change hands.
    "BEGIN; UPDATE {t} SET k = '{o}' WHERE id = 5; UPDATE {t} SET k = '{c}' WHERE id = 11; UPDATE {t} SET k = '{a}' WHERE id = 5; COMMIT",
    "DELETE FROM {t} WHERE k = (SELECT min(k COLLATE \"C\") FROM {t})",
    "BEGIN; DELETE FROM {t}; INSERT INTO {t} VALUES (7, '{b}', 'seven'), (6, '{c}', 'six'), (8, '{o}', 'eight'); COMMIT",
    "UPDATE {t} SET id = id + 100 WHERE id = 6",
    "UPDATE {t} SET id = id - 105 WHERE id = 106",
    "BEGIN; TRUNCATE {t}; INSERT INTO {t} VALUES (12, '{c}', 'twelve'), (13, '{a}', 'thirteen'); COMMIT",
    "DELETE FROM {t} WHERE id = 12",
];

/// Applies a step to every table, and waits until every lookup shows the first row of each of its
/// keys.
async fn step(source: &Client, target: &Client, step: &str, rules: &[&Rule]) {
    for each in tables(rules) {
        let (rule, table) = (each.0, &each.1);
        let sql = step
            .replace("{t}", table)
            .replace("{o}", rule.other)
            .replace("{a}", rule.keys[0])
            .replace("{b}", rule.keys[1])
            .replace("{c}", rule.keys[2])
            .replace("{d}", rule.keys[3]);
        source
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for (rule, table, order) in tables(rules) {
        let of_key = rule.one_key;
        // As the lookup's type prints it: a char(n) is shown without its blanks.
        let shown = if rule.name == "padded" { of_key } else { "k" };
        wait_equal(
            source,
            &format!(
                "SELECT shown, v FROM (SELECT DISTINCT ON ({of_key}) {shown} AS shown, v FROM {table} ORDER BY {of_key}, {order}) s ORDER BY v"
            ),
            target,
            &format!("SELECT k::text, v FROM {table} ORDER BY v"),
        )
        .await;
    }
}

fn tables<'a>(rules: &[&'a Rule]) -> Vec<(&'a Rule, String, &'static str)> {
    let mut tables = Vec::new();
    for rule in rules {
        for (identity, _, order) in IDENTITIES {
            tables.push((*rule, format!("{}_{identity}", rule.name), order));
        }
    }
    tables
}

/// No unique index of the source keeps them apart, so the one with the smallest identity is shown,
/// and the next one when it goes.
#[tokio::test]
async fn rows_that_only_the_lookup_takes_for_one_key_give_way_to_each_other() {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    let icu = "SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i'";
    let has_icu = value(&target, icu).await == "t";
    if has_icu {
        let collation = "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
        target.batch_execute(collation).await.unwrap();
    } else {
        eprintln!("NOT RUN for collations: this server has no ICU.");
    }
    target
        .batch_execute("CREATE EXTENSION citext")
        .await
        .unwrap();
    let rules: Vec<&Rule> = RULES
        .iter()
        .filter(|rule| has_icu || rule.name != "icu")
        .collect();
    for rule in &rules {
        for (identity, constraint, _) in IDENTITIES {
            let table = format!("{}_{identity}", rule.name);
            let full = if identity == "full" {
                format!("ALTER TABLE {table} REPLICA IDENTITY FULL;")
            } else {
                String::new()
            };
            source
                .batch_execute(&format!(
                    "CREATE TABLE {table} (id int NOT NULL, k text NOT NULL, v text, {constraint}); {full}"
                ))
                .await
                .unwrap();
            target
                .batch_execute(&format!(
                    "CREATE TABLE {table} (k {} PRIMARY KEY, v text)",
                    rule.key_type
                ))
                .await
                .unwrap();
            write!(
                pair.config,
                "\n[[read_model]]\nsource = '{table}'\ntarget = '{table}'\nkey = ['k']\ncolumns = ['k', 'v']\n"
            )
            .unwrap();
        }
    }
    for (rule, table, _) in tables(&rules) {
        let [a, b, c, _] = rule.keys;
        let sql = format!(
            "INSERT INTO {table} VALUES (9, '{c}', 'nine'), (10, '{b}', 'ten'), (11, '{a}', 'eleven')"
        );
        source.batch_execute(&sql).await.unwrap();
    }
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    step(&source, &target, "SELECT", &rules).await;
    for sql in STEPS {
        eprintln!("{sql}");
        step(&source, &target, sql, &rules).await;
    }
    wait_rows(
        &target,
        "SELECT DISTINCT state FROM cdc.read_model",
        &["in_step"],
    )
    .await;
    assert_eq!(count_log(&cdc, "trying again"), 0);
    assert_eq!(count_log(&cdc, "suspended"), 0);
    // A copy has them in the same order.
    let resync = Cdc::output(&pair, &["resync"]);
    let text = String::from_utf8_lossy(&resync.stdout).into_owned();
    assert_eq!(
        text.matches("repaired: 0 missing, 0 different, 0 extra")
            .count(),
        tables(&rules).len(),
        "{text}"
    );
    step(&source, &target, "DELETE FROM {t}", &rules).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}

/// One message of the stream names several tables; what comes after it in the same transaction
/// counts.
#[tokio::test]
async fn tables_that_are_truncated_together_show_what_was_written_after() {
    let mut pair = database_pair().await;
    let source = pg(&pair.source_url).await;
    let target = pg(&pair.target_url).await;
    source
        .batch_execute(
            "CREATE TABLE parents (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
             CREATE TABLE children (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int NOT NULL REFERENCES parents, name text);
             CREATE TABLE unfollowed (parent int REFERENCES parents);
             INSERT INTO parents (name) VALUES ('p1'), ('p2'), ('p3'); INSERT INTO children (parent, name) VALUES (1, 'c1'), (2, 'c2')",
        )
        .await
        .unwrap();
    for (table, key, columns) in [
        ("parents", "name", "'name', 'id'"),
        ("children", "id", "'id', 'parent', 'name'"),
    ] {
        write!(
            pair.config,
            "\n[[read_model]]\nsource = '{table}'\ntarget = '{table}_lookup'\nkey = ['{key}']\ncolumns = [{columns}]\n"
        )
        .unwrap();
    }
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    for change in [
        "SELECT",
        "BEGIN; INSERT INTO parents (name) VALUES ('before'); TRUNCATE parents, children, unfollowed;
         INSERT INTO parents (name) VALUES ('p1'), ('p9'); COMMIT",
        // The same ids again, and the same names under other ids.
        "BEGIN; INSERT INTO parents (name) VALUES ('before'); TRUNCATE parents RESTART IDENTITY CASCADE;
         INSERT INTO parents (name) VALUES ('p9'), ('p1'); INSERT INTO children (parent, name) VALUES (1, 'c'), (2, 'd');
         UPDATE children SET name = 'e' WHERE id = 1; DELETE FROM children WHERE id = 2; COMMIT",
        "BEGIN; TRUNCATE children RESTART IDENTITY; SAVEPOINT s; TRUNCATE parents CASCADE; INSERT INTO parents (name) VALUES ('never');
         ROLLBACK TO s; INSERT INTO children (parent, name) VALUES (2, 'kept'); COMMIT",
        "BEGIN; TRUNCATE parents RESTART IDENTITY CASCADE; INSERT INTO parents (name) VALUES ('once');
         TRUNCATE parents RESTART IDENTITY CASCADE; INSERT INTO parents (name) VALUES ('twice'), ('p1');
         INSERT INTO children (parent, name) VALUES (1, 'f'); TRUNCATE children RESTART IDENTITY; INSERT INTO children (parent, name) VALUES (2, 'g'); COMMIT",
        "UPDATE parents SET name = name || '!'; DELETE FROM children",
        "TRUNCATE parents CASCADE",
    ] {
        source
            .batch_execute(change)
            .await
            .unwrap_or_else(|error| panic!("{change}: {error:?}"));
        for (columns, table) in [("name, id", "parents"), ("id, parent, name", "children")] {
            let query = format!("SELECT {columns} FROM {table} ORDER BY 1");
            wait_equal(
                &source,
                &query,
                &target,
                &query.replace(" ORDER", "_lookup ORDER"),
            )
            .await;
        }
    }
    assert_eq!(rows(&target, "SELECT * FROM parents_lookup").await.len(), 0);
    assert_eq!(count_log(&cdc, "trying again"), 0);
    assert_eq!(count_log(&cdc, "suspended"), 0);
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
}
