//! A publication that holds a table without a replica identity makes that table's UPDATE and DELETE
//! fail in the application. `cdc check` names exactly these tables, whether they are followed or
//! not.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::{Cdc, Pair, labels_pair, rows, server_version};

const TABLES: &str = "
    CREATE TABLE fine (id int PRIMARY KEY, v int);
    CREATE TABLE no_key (id int, v int);
    CREATE TABLE candidate (id int NOT NULL, v int); CREATE UNIQUE INDEX candidate_id ON candidate (id);
    CREATE TABLE nullable (id int, v int); CREATE UNIQUE INDEX nullable_id ON nullable (id);
    CREATE TABLE nothing (id int PRIMARY KEY, v int); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE whole (id int, v int); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int NOT NULL, v int); CREATE UNIQUE INDEX by_index_id ON by_index (id);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id;
    CREATE TABLE lost_index (id int NOT NULL, v int); CREATE UNIQUE INDEX lost_index_id ON lost_index (id);
    ALTER TABLE lost_index REPLICA IDENTITY USING INDEX lost_index_id; DROP INDEX lost_index_id;
    CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, v int);
    CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE loose (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE loose_1 PARTITION OF loose FOR VALUES FROM (0) TO (10); ALTER TABLE loose_1 ADD PRIMARY KEY (id);
    CREATE TABLE loose_2 PARTITION OF loose FOR VALUES FROM (10) TO (20);
    CREATE TABLE \"odd, name\" (id int, v int)";

/// Tables to write to.
const WRITTEN: &[&str] = &[
    "fine",
    "no_key",
    "candidate",
    "nullable",
    "nothing",
    "whole",
    "by_index",
    "lost_index",
    "deferred",
    "parts_1",
    "loose_1",
    "loose_2",
    "odd, name",
];

/// The tables on which this statement fails for want of a replica identity.
async fn failing(source: &Client, statement: &str) -> Vec<String> {
    let mut failing = Vec::new();
    for name in WRITTEN {
        let sql = statement.replace("TABLE", &format!("\"{name}\""));
        match source.batch_execute(&sql).await {
            Ok(()) => {}
            Err(error) => {
                let of_identity = error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
                assert!(of_identity, "{sql}: {error:?}");
                failing.push((*name).to_owned());
            }
        }
    }
    failing
}

/// What `check` says of tables that are not followed: the finding as a whole.
fn found(pair: &Pair) -> Option<Value> {
    let output = Cdc::output(pair, &["check", "--json"]);
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut findings = findings.into_iter().filter(|finding| {
        finding["message"]
            .as_str()
            .unwrap()
            .contains("tables that are not followed")
    });
    let found = findings.next();
    assert!(findings.next().is_none());
    if found.is_some() {
        assert_eq!(output.status.code(), Some(1));
    }
    found
}

async fn publish(source: &Client, publication: &str) {
    source
        .batch_execute(&format!("DROP PUBLICATION IF EXISTS cdc; {publication}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn tables_that_are_not_followed_and_whose_writes_fail_are_named() {
    let (pair, source, _target) = labels_pair().await;
    source.batch_execute(TABLES).await.unwrap();
    let listed = "FOR TABLE labels, fine, no_key, candidate, nullable, nothing, whole, by_index, lost_index, deferred, parts, loose, \"odd, name\"";
    let mut publications = Vec::new();
    for tables in ["FOR ALL TABLES", listed] {
        for root in ["", ", publish_via_partition_root = true"] {
            for operations in [
                "insert, update, delete, truncate",
                "insert, update",
                "delete",
                "insert",
            ] {
                publications.push(format!(
                    "CREATE PUBLICATION cdc {tables} WITH (publish = '{operations}'{root})"
                ));
            }
        }
    }
    if server_version(&source).await >= 150_000 {
        publications.push("CREATE PUBLICATION cdc FOR TABLES IN SCHEMA public".to_owned());
    }
    for publication in publications {
        publish(&source, &publication).await;
        let update = failing(&source, "UPDATE TABLE SET v = 1").await;
        let delete = failing(&source, "DELETE FROM TABLE").await;
        let expected: Vec<&String> = if update.is_empty() {
            delete.iter().collect()
        } else {
            update.iter().collect()
        };
        let Some(finding) = found(&pair) else {
            assert!(expected.is_empty(), "{publication}: {expected:?}");
            continue;
        };
        let words = match (update.is_empty(), delete.is_empty()) {
            (false, false) => "UPDATE and DELETE fail",
            (false, true) => "UPDATE fail",
            (true, false) => "DELETE fail",
            (true, true) => panic!("nothing fails: {publication}: {finding}"),
        };
        let message = finding["message"].as_str().unwrap();
        assert!(message.contains(words), "{publication}: {message}");
        for name in WRITTEN {
            let shown = name.replace("odd, name", "\"odd, name\"");
            let named = message.contains(&format!("public.{shown}"));
            let fails = expected.iter().any(|failing| failing == name);
            assert_eq!(named, fails, "{publication}: {name}: {message}");
        }
    }
}

#[tokio::test]
async fn what_check_says_helps() {
    let (pair, source, _target) = labels_pair().await;
    source.batch_execute(TABLES).await.unwrap();
    publish(
        &source,
        "CREATE PUBLICATION cdc FOR ALL TABLES WITH (publish_via_partition_root = true)",
    )
    .await;
    let finding = found(&pair).unwrap();
    let fix = finding["fix"].as_str().unwrap();
    for expected in [
        "ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT;",
        "ALTER TABLE \"public\".\"candidate\" REPLICA IDENTITY USING INDEX \"candidate_id\";",
        "ALTER TABLE \"public\".\"nullable\" REPLICA IDENTITY FULL;",
    ] {
        assert!(fix.contains(expected), "{fix}");
    }
    let statements: Vec<&str> = fix
        .split_inclusive(';')
        .map(str::trim)
        .filter(|sql| sql.starts_with("ALTER TABLE"))
        .collect();
    source.batch_execute(&statements.concat()).await.unwrap();
    assert_eq!(found(&pair), None);
    assert!(failing(&source, "UPDATE TABLE SET v = 2").await.is_empty());
    // Of the table that is followed it says so where everything else of it is said.
    source
        .batch_execute("ALTER TABLE labels REPLICA IDENTITY NOTHING")
        .await
        .unwrap();
    assert_eq!(found(&pair), None);
    let text = Cdc::output(&pair, &["check"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("UPDATE and DELETE on \"public.labels\" fail"),
        "{text}"
    );
    assert!(rows(&source, "SELECT 1 FROM labels").await.len() > 1);
}
