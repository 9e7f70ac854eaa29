//! The model against a real server: the SQL of random histories is run, and what pgoutput says of
//! it is what the model wrote. So the SQL that a failure prints is right, and so are the rules of
//! old rows and of values that are left out.

use std::collections::HashMap;

use cdc::protocol::pgoutput::{Message, OldTuple, decode};
use cdc::protocol::tuple::Tuple;
use cdc::row::Cell;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::history::History;
use crate::support::{self, pg, rows};

/// Histories that are compared.
const HISTORIES: u64 = 60;

#[tokio::test]
async fn a_server_says_what_the_model_writes() {
    let pair = support::database_pair().await;
    let client = pg(&pair.source_url).await;
    let slot = format!("model_{}", pair.source_database);
    let first = crate::number("CDC_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut compared = 0;
    for seed in first..first + HISTORIES {
        let history = History::any(seed);
        client
            .batch_execute(
                "DROP TABLE IF EXISTS labels, elsewhere; DROP PUBLICATION IF EXISTS model",
            )
            .await
            .unwrap();
        client.batch_execute(&history.tables()).await.unwrap();
        client
            .batch_execute("CREATE PUBLICATION model FOR TABLE labels, elsewhere")
            .await
            .unwrap();
        let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        rows(&client, &create).await;
        let mut told = Ok(());
        for (sql, _) in history.told() {
            told = client.batch_execute(&sql).await;
            match &told {
                Ok(()) => {}
                // Codes that are checked at the commit: the server does not truncate before that.
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => break,
                Err(error) => panic!("CDC_TEST_SEED={seed}: {error:?}\n{sql}"),
            }
        }
        if told.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        let found = read(&client, &slot).await;
        rows(
            &client,
            &format!("SELECT pg_drop_replication_slot('{slot}')"),
        )
        .await;
        if told.is_err() {
            continue;
        }
        compared += 1;
        let mut expected = Reading::default();
        for (_, messages) in history.told() {
            messages.iter().for_each(|message| expected.take(message));
        }
        if found != expected.lines {
            let place = found
                .iter()
                .zip(&expected.lines)
                .take_while(|(a, b)| a == b)
                .count();
            let transaction = |lines: &[String]| {
                let start = lines[..place]
                    .iter()
                    .rposition(|line| line == "commit")
                    .map_or(0, |at| at + 1);
                let lines = lines[start..].iter().take_while(|line| *line != "commit");
                lines.map(|line| format!("  {line}\n")).collect::<String>()
            };
            panic!(
                "CDC_TEST_SEED={seed}: of one transaction the server says\n{}and the model\n{}{:?}\n{}",
                transaction(&found),
                transaction(&expected.lines),
                history.kind,
                history.sql()
            );
        }
    }
    assert!(compared > HISTORIES / 2, "{compared} histories");
}

/// What the slot says, as lines.
async fn read(client: &Client, slot: &str) -> Vec<String> {
    let query = format!(
        "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('{slot}', NULL, NULL, 'proto_version', '1', 'publication_names', 'model')"
    );
    let mut reading = Reading::default();
    for hex in rows(client, &query).await {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        reading.take(&bytes);
    }
    reading.lines
}

/// Messages as lines that do not depend on the run. Within a transaction they are sorted: an UPDATE
/// of all rows takes them in any order.
#[derive(Default)]
struct Reading {
    lines: Vec<String>,
    open: Vec<String>,
    /// Names and columns by OID.
    relations: HashMap<u32, (String, Vec<String>)>,
    described: bool,
}

impl Reading {
    fn take(&mut self, bytes: &[u8]) {
        let line = match decode(bytes).unwrap() {
            Message::Begin(_) => return self.open.clear(),
            Message::Commit(_) => {
                self.open.sort();
                // Servers before 15 send empty transactions, later ones do not.
                if !self.open.is_empty() {
                    self.lines.append(&mut self.open);
                    self.lines.push("commit".to_owned());
                }
                return;
            }
            Message::Relation(relation) => {
                let columns = relation
                    .columns
                    .iter()
                    .map(|column| column.name.to_owned())
                    .collect();
                self.relations
                    .insert(relation.oid, (relation.name.to_owned(), columns));
                if relation.name == "labels" && !std::mem::replace(&mut self.described, true) {
                    let columns: Vec<_> = relation
                        .columns
                        .iter()
                        .map(|column| (column.in_identity, column.name, column.type_oid))
                        .collect();
                    self.lines.push(format!(
                        "labels: {:?} {columns:?}",
                        relation.replica_identity
                    ));
                }
                return;
            }
            Message::Insert { relation, new } => format!("insert {}", self.tuple(relation, &new)),
            Message::Update { relation, old, new } => {
                let old = old.filter(|old| !repeats(old, &new));
                let old = old.map_or(String::new(), |old| self.old(relation, &old));
                format!("update {old} to {}", self.tuple(relation, &new))
            }
            Message::Delete { relation, old } => format!("delete {}", self.old(relation, &old)),
            Message::Truncate { relations, .. } => {
                format!("truncate {}", self.relations[&relations[0]].0)
            }
            other => panic!("{other:?}"),
        };
        self.open.push(line);
    }

    fn old(&self, relation: u32, old: &OldTuple<'_>) -> String {
        let kind = match old {
            OldTuple::Key(_) => "K",
            OldTuple::Old(_) => "O",
        };
        format!("{kind} {}", self.tuple(relation, &old.tuple()))
    }

    fn tuple(&self, relation: u32, tuple: &Tuple<'_>) -> String {
        let (name, columns) = &self.relations[&relation];
        let mut text = name.clone();
        for (column, cell) in columns.iter().zip(tuple.cells()) {
            text.push('|');
            match cell {
                Cell::Null => text.push('-'),
                Cell::Unchanged => text.push('u'),
                Cell::Text(value) => {
                    text.push_str(&short(column, std::str::from_utf8(value).unwrap()))
                }
            }
        }
        text
    }
}

/// Whether an old identity says what the new row says too: the server sends it where an assigned
/// value is the same, but was stored in another form (measured: a text with storage PLAIN).
fn repeats(old: &OldTuple<'_>, new: &Tuple<'_>) -> bool {
    let OldTuple::Key(old) = old else {
        return false;
    };
    let mut cells = old.cells().zip(new.cells());
    cells.all(|(old, new)| old == Cell::Null || old == new)
}

/// A value under the short name that the model has for it.
fn short(column: &str, value: &str) -> String {
    match column {
        "code" => value.trim_end_matches('x').to_owned(),
        "deleted_at" => "then".to_owned(),
        "note" if value.len() > 1000 => format!("long {}", value.split(',').next().unwrap()),
        _ => value.to_owned(),
    }
}
