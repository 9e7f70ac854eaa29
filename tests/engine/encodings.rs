//! Databases with other encodings than UTF8, on either side: right to the byte, or refused with the
//! reason.

use crate::support::tags::{
    ALL_IN_STEP, STATES, TAGS_LOOKUP, TAGS_MODEL, TAGS_SUSPENDED, wait_told,
};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, Signal, count_log, database_pair, pg, rows, seeded, source, target,
    wait_rows,
};
use crate::support::{value, wait_in_step};
use tokio_postgres::Client;

/// Makes the databases anew with these encodings.
async fn pair_with(source_encoding: &str, target_encoding: &str) -> (Pair, Client, Client) {
    let pair = database_pair().await;
    for (cluster, database, encoding) in [
        (source(), &pair.source_database, source_encoding),
        (target(), &pair.target_database, target_encoding),
    ] {
        let server = pg(&cluster.url("postgres")).await;
        let statements = [
            format!("DROP DATABASE {database}"),
            format!(
                "CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
            ),
        ];
        for statement in statements {
            server.batch_execute(&statement).await.unwrap();
        }
    }
    let (source, target) = seeded(&pair).await;
    (pair, source, target)
}

const CODES: &str = "SELECT code, label, octet_length(label) FROM labels_lookup WHERE code IN ('É', 'X') ORDER BY 1";

/// First copy, insert, key change and a name in the stream, in the letters that LATIN1 has.
async fn follows(source_encoding: &str, target_encoding: &str, bytes_of_bruecke: &str) {
    let (pair, source, target) = pair_with(source_encoding, target_encoding).await;
    source
        .batch_execute(
            "ALTER TABLE labels ADD COLUMN \"größe\" int;
             INSERT INTO labels (code, label, display_name) VALUES ('Ü', 'Brücke', 'ÿ')",
        )
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    source
        .batch_execute(
            "UPDATE labels SET code = 'É' WHERE code = 'Ü';
             UPDATE labels SET label = label || '®' WHERE code <> 'É'",
        )
        .await
        .unwrap();
    let seen = wait_in_step(&source, &target).await;
    assert!(seen.contains(&"É|Brücke|ÿ".to_owned()), "{seen:?}");
    assert_eq!(
        rows(&target, CODES).await,
        [format!("É|Brücke|{bytes_of_bruecke}")],
        "{source_encoding} to {target_encoding}"
    );
    assert!(Cdc::output(&pair, &["resync"]).status.success());
}

#[tokio::test]
async fn latin1_goes_into_utf8_and_back() {
    follows("LATIN1", "UTF8", "7").await;
    follows("UTF8", "LATIN1", "6").await;
    follows("LATIN1", "LATIN1", "6").await;
}

/// It stores the bytes that come, which are UTF-8.
#[tokio::test]
async fn a_target_without_encoding_gets_utf8() {
    follows("UTF8", "SQL_ASCII", "7").await;
    follows("LATIN1", "SQL_ASCII", "7").await;
}

#[tokio::test]
async fn a_row_with_a_character_that_the_target_lacks_is_set_apart() {
    let (pair, source, target) = pair_with("UTF8", "LATIN1").await;
    let check = Cdc::output(&pair, &["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("server_encoding is LATIN1, the source's is UTF8"),
        "{text}"
    );
    let _cdc = Cdc::run(&pair);
    let before = wait_in_step(&source, &target).await;
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) VALUES ('X', '€', 'Euro')")
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT key, shown, sqlstate FROM cdc.rejected",
        &["X|nothing|22P05"],
    )
    .await;
    assert_eq!(crate::support::lookup(&target).await, before);
    source
        .batch_execute("UPDATE labels SET label = 'EUR' WHERE code = 'X'; ")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    wait_rows(&target, "SELECT key FROM cdc.rejected", &[]).await;
    wait_rows(&target, CODES, &["X|EUR|3"]).await;
}

/// The server ends the stream at the first text that is not UTF-8, whatever the read models take of
/// it.
#[tokio::test]
async fn a_source_without_encoding_is_refused_before_the_first_row() {
    let (pair, source, target) = pair_with("SQL_ASCII", "UTF8").await;
    let check = Cdc::output(&pair, &["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("server_encoding is SQL_ASCII"), "{text}");
    let run = Cdc::output(&pair, &["run"]);
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{text}");
    for part in [
        "has encoding SQL_ASCII",
        "would end the",
        "restore it into one",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        value(&target, "SELECT count(*) FROM labels_lookup").await,
        "0"
    );
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        pair.slot
    );
    assert_eq!(value(&source, &slots).await, "0");
}

/// The byte 0x81 has no counterpart in UTF-8, but a database in WIN1252 takes it.
const UNSENDABLE: &str = "convert_from('\\x81'::bytea, 'WIN1252')";

/// What the source cannot send stands in a column that no read model projects: the copy goes round
/// it.
#[tokio::test]
async fn a_value_that_the_source_cannot_send_is_gone_round() {
    let (pair, source, target) = pair_with("WIN1252", "UTF8").await;
    source
        .batch_execute("SET client_encoding = 'WIN1252'; ALTER TABLE labels ADD COLUMN note text")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    source
        .batch_execute(&format!(
            "UPDATE labels SET note = {UNSENDABLE}, label = 'behind' WHERE code = 'MR'"
        ))
        .await
        .unwrap();
    let stuck = "SELECT stuck_times > 1, stuck_sqlstate FROM cdc.pipeline";
    wait_rows(&target, stuck, &["t|22P05"]).await;
    let status = Cdc::output(&pair, &["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the source cannot send what follows"),
        "{text}"
    );
    // What a restart of the process forgets would be tried from the beginning.
    cdc.stop(Signal::Kill).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    let heals = "SELECT count(*) FROM cdc.resync WHERE origin = 'heal'";
    wait_rows(&target, heals, &["1"]).await;
    assert!(cdc.log().contains("failed there 6 times"), "{}", cdc.log());
    source
        .batch_execute("UPDATE labels SET note = NULL; UPDATE labels SET label = 'after'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    let status = Cdc::output(&pair, &["status"]);
    assert!(status.status.success(), "{status:?}");
}

/// The same in a column that a read model projects: no copy can read it, so its table leaves the
/// publication until it is corrected.
#[tokio::test]
async fn a_table_with_a_projected_value_that_cannot_be_read_leaves_the_publication() {
    let (mut pair, source, target) = pair_with("WIN1252", "UTF8").await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(
            "SET client_encoding = 'WIN1252'; CREATE TABLE tags (tag text PRIMARY KEY, note text); \
             INSERT INTO tags VALUES ('a', 'x')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    let before = wait_in_step(&source, &target).await;
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    source
        .batch_execute(&format!(
            "UPDATE tags SET note = {UNSENDABLE}; UPDATE labels SET label = 'behind' WHERE code = 'MR'"
        ))
        .await
        .unwrap();
    wait_rows(&target, STATES, TAGS_SUSPENDED).await;
    let published = "SELECT tablename FROM pg_publication_tables";
    wait_rows(&source, published, &["labels"]).await;
    assert_ne!(wait_in_step(&source, &target).await, before);
    wait_told(
        &target,
        &[
            "has a value that the source cannot read out",
            "could not read table",
        ],
    )
    .await;
    // Its next updates end no stream.
    let heals = count_log(&cdc, "the stream cannot continue");
    source
        .batch_execute(&format!(
            "UPDATE tags SET note = note || {UNSENDABLE}; UPDATE labels SET label = 'further' WHERE code = 'MR'"
        ))
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(
        count_log(&cdc, "the stream cannot continue"),
        heals,
        "{}",
        cdc.log()
    );
    source
        .batch_execute("UPDATE tags SET note = 'corrected'")
        .await
        .unwrap();
    let resync = Cdc::output(&pair, &["resync", "public.tags_lookup"]);
    assert!(resync.status.success(), "{resync:?}");
    wait_rows(&target, STATES, ALL_IN_STEP).await;
    wait_rows(&target, TAGS_LOOKUP, &["a|corrected"]).await;
    source
        .batch_execute("UPDATE tags SET note = 'streamed'")
        .await
        .unwrap();
    wait_rows(&target, TAGS_LOOKUP, &["a|streamed"]).await;
}
