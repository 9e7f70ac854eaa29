//! Names as PostgreSQL allows them: of databases, roles, schemas, tables, columns, types,
//! publications and slots.

use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Signal, count_log, database_pair, pg, rows, source, target, tear_down, value,
    wait_equal, wait_log, wait_rows,
};

/// Each ends in a letter, in place of which [`Names::with`] puts another sign.
const NAMES: [&str; 6] = [
    "Upper Case with \"quotes\" and 'apostrophes' x",
    "\"dots.and.more; DROP TABLE labels; -- x",
    "select",
    // 63 bytes, the most that PostgreSQL keeps.
    "ünïcödéy ☃ 表 éééééééééééééééééééé x",
    // What means something to those who build SQL, COPY or URLs from it.
    "{schema} {} $1 %I \\N \\x",
    " @:/?#%41&=+ x",
];

/// The names that come from one.
struct Names(&'static str);

impl Names {
    /// The name as it is, quoted for SQL.
    fn plain(&self) -> String {
        quoted(self.0)
    }

    /// The name with another sign at its end, not quoted.
    fn with(&self, sign: char) -> String {
        let mut name = self.0.to_owned();
        name.pop();
        name.push(sign);
        name
    }

    /// The same, quoted for SQL.
    fn sql(&self, sign: char) -> String {
        quoted(&self.with(sign))
    }

    /// Schema and table of the master data, quoted for SQL; its columns are `0` (key), `1`, `2` (an
    /// enum), and `3` (soft delete).
    fn source(&self) -> String {
        format!("{}.{}", self.plain(), self.plain())
    }

    /// Schema and table of the lookup, quoted for SQL; `1` is called `5` there, and `4` is when it
    /// was written.
    fn lookup(&self) -> String {
        format!("{}.{}", self.sql('l'), self.plain())
    }

    fn config(&self, slot: &str) -> String {
        format!(
            "[source]\nslot = \"{slot}\"\npublication = {:?}\n[target]\nschema = {:?}\n[[read_model]]\nsource = {:?}\ntarget = {:?}\n\
             key = [{key:?}]\ncolumns = {{ {key:?} = {key:?}, {:?} = {:?}, {kind:?} = {kind:?} }}\nsoft_delete = {:?}\nsynced_at = {:?}\n",
            self.0,
            self.0,
            self.source(),
            self.lookup(),
            self.with('5'),
            self.with('1'),
            self.with('3'),
            self.with('4'),
            key = self.with('0'),
            kind = self.with('2'),
        )
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Every byte that is no letter or digit as `%XX`.
fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Both databases by this name, owned by a role of this name, which may do no more than it must.
async fn named_pair(names: &Names) -> (Pair, Client, Client) {
    let mut pair = database_pair().await;
    let (database, role) = (names.sql('d'), names.plain());
    let mut clients = Vec::new();
    for (cluster, attributes) in [(source(), "LOGIN REPLICATION"), (target(), "LOGIN")] {
        let admin = pg(&cluster.url("postgres")).await;
        for statement in [
            format!("CREATE ROLE {role} {attributes}"),
            format!("CREATE DATABASE {database} TEMPLATE template0 OWNER {role}"),
        ] {
            admin.batch_execute(&statement).await.unwrap();
        }
        clients.push(pg(&cluster.url(&names.with('d'))).await);
    }
    let user = format!("{}@", encoded(names.0));
    pair.source_url = source().url(&names.with('d')).replace("postgres@", &user);
    pair.target_url = target().url(&names.with('d')).replace("postgres@", &user);
    let target = clients.pop().unwrap();
    (pair, clients.pop().unwrap(), target)
}

async fn follows(names: &Names, slot: Option<&str>) {
    let (mut pair, source, target) = named_pair(names).await;
    pair.slot = slot.unwrap_or(&pair.slot).to_owned();
    pair.config = names.config(&pair.slot);
    let table = names.source();
    let (role, kind) = (names.plain(), names.plain());
    let [key, text, of_kind, gone] = ['0', '1', '2', '3'].map(|sign| names.sql(sign));
    let types = format!("CREATE TYPE public.{kind} AS ENUM ('a', 'ü')");
    source
        .batch_execute(&format!(
            "SET ROLE {role}; CREATE SCHEMA {role}; RESET ROLE; {types};
             CREATE TABLE {table} (id int PRIMARY KEY, {key} text NOT NULL, {text} text, {of_kind} public.{kind}, {gone} timestamptz);
             ALTER TABLE {table} OWNER TO {role};
             INSERT INTO {table} VALUES (1, 'A', 'a', 'a'), (2, 'B', 'b', 'ü'), (3, 'C', 'c', NULL)"
        ))
        .await
        .unwrap();
    target
        .batch_execute(&format!(
            "{types}; CREATE SCHEMA {} AUTHORIZATION {role}",
            names.sql('l')
        ))
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    let live =
        format!("SELECT {key}, {text}, {of_kind} FROM {table} WHERE {gone} IS NULL ORDER BY 1");
    let shown = format!(
        "SELECT {key}, {}, {of_kind} FROM {} WHERE {} IS NOT NULL ORDER BY 1",
        names.sql('5'),
        names.lookup(),
        names.sql('4')
    );
    wait_equal(&source, &live, &target, &shown).await;
    for change in [
        format!("UPDATE {table} SET {text} = 'changed', {of_kind} = 'ü' WHERE id = 1"),
        format!("UPDATE {table} SET {key} = 'Z' WHERE id = 2"),
        format!("UPDATE {table} SET {gone} = now() WHERE id = 3"),
        format!("UPDATE {table} SET {gone} = NULL WHERE id = 3; DELETE FROM {table} WHERE id = 1"),
        format!(
            "BEGIN; DELETE FROM {table}; INSERT INTO {table} VALUES (4, 'D', 'd', 'a'); COMMIT"
        ),
    ] {
        source
            .batch_execute(&change)
            .await
            .unwrap_or_else(|error| panic!("{change}: {error:?}"));
        wait_equal(&source, &live, &target, &shown).await;
    }
    assert_eq!(count_log(&cdc, "trying again"), 0);
    let resync = Cdc::output(&pair, &["resync"]);
    let text_of = String::from_utf8_lossy(&resync.stdout).into_owned();
    assert!(
        text_of.contains("repaired: 0 missing, 0 different, 0 extra"),
        "{resync:?}"
    );
    // A killed one leaves its sessions and its slot to the next one.
    cdc.stop(Signal::Kill).await;
    source
        .batch_execute(&format!("INSERT INTO {table} VALUES (5, 'E', 'e', 'a')"))
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_equal(&source, &live, &target, &shown).await;
    wait_rows(
        &target,
        &format!("SELECT state FROM {}.read_model", names.plain()),
        &["in_step"],
    )
    .await;
    for command in ["status", "check"] {
        let output = Cdc::output(&pair, &[command]);
        assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
    }
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    tear_down(&pair).await;
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(value(&source, left).await, "0");
    let schema = "SELECT nspname FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') LIKE 'cdc bookkeeping%'";
    assert_eq!(rows(&target, schema).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_name_that_postgresql_takes_is_taken() {
    for name in NAMES {
        eprintln!("{name}");
        follows(&Names(name), None).await;
    }
}

/// A slot's name stands in others: of the slot of a copy, of sessions, of locks.
#[tokio::test]
async fn slot_with_the_longest_name_is_like_any_other() {
    let slot = "s".repeat(63);
    follows(&Names("longest slot"), Some(&slot)).await;
}
