//! A dump of the target locks every table that it has listed until its end, which may take hours.
//! Nothing waits for it, it is not ended, and it never fails because a table has gone meanwhile.

use tokio_postgres::Client;

use crate::support::held::{self, FILL};
use crate::support::{
    Cdc, LABELS_MODEL, Pair, database_pair, pg, rows, seeded, value, wait_in_step, wait_rows,
};

const ITEMS_MODEL: &str = "
[[read_model]]
source = 'public.items'
target = 'public.items_lookup'
key = ['id']
columns = ['id', 'v']
";

const ITEMS: &str = "SELECT id, v FROM items_lookup ORDER BY id";

/// What `pg_dump` does before it reads rows: it lists the tables, and locks each of them.
const LISTED: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'cdc') AND c.relkind = 'r' ORDER BY c.oid";

/// Labels and items are followed.
async fn items_pair() -> (Pair, Client, Client) {
    let mut pair = database_pair().await;
    pair.config = format!("{}{LABELS_MODEL}{ITEMS_MODEL}", pair.config);
    let (source, target) = seeded(&pair).await;
    source
        .batch_execute(
            "CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items VALUES (1, 'one')",
        )
        .await
        .unwrap();
    (pair, source, target)
}

/// Labels are followed, and what they show is exact.
async fn goes_on(case: &str, source: &Client, target: &Client) {
    eprintln!("{case}");
    wait_in_step(source, target).await;
    for label in ["one", "two"] {
        source
            .batch_execute(&format!(
                "UPDATE labels SET label = '{case}, {label}' WHERE code = 'MR'"
            ))
            .await
            .unwrap();
        wait_in_step(source, target).await;
    }
}

/// A dump that has locked everything there is.
async fn begin_dump(url: &str) -> Client {
    let dump = pg(url).await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    dump.batch_execute(begin).await.unwrap();
    lock_all(&dump).await.unwrap();
    dump
}

async fn lock_all(dump: &Client) -> Result<(), tokio_postgres::Error> {
    for table in rows(dump, LISTED).await {
        dump.batch_execute(&format!("LOCK TABLE {table} IN ACCESS SHARE MODE"))
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn table_that_is_altered_during_a_dump_holds_up_no_other() {
    let (pair, source, target) = items_pair().await;
    let _cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    wait_rows(&target, ITEMS, &["1|one"]).await;
    let dump = begin_dump(&pair.target_url).await;
    source
        .batch_execute("ALTER TABLE items ALTER v TYPE varchar(100); UPDATE items SET v = 'two'")
        .await
        .unwrap();
    // Both, while the dump goes on: the altered one has another map.
    wait_rows(&target, ITEMS, &["1|two"]).await;
    goes_on("beside a dump", &source, &target).await;
    let left = "SELECT count(*) FROM cdc.discarded";
    wait_rows(&target, "SELECT count(*) > 0 FROM cdc.discarded", &["t"]).await;
    dump.batch_execute("COMMIT")
        .await
        .expect("the dump goes on");
    drop(dump);
    wait_rows(&target, left, &["0"]).await;
    let maps =
        "SELECT count(*) FROM pg_class WHERE relname ~ '^map_[0-9]+(_[0-9]+)?$' AND relkind = 'r'";
    assert_eq!(value(&target, maps).await, "2");
    source
        .batch_execute("UPDATE items SET v = 'three'")
        .await
        .unwrap();
    wait_rows(&target, ITEMS, &["1|three"]).await;
}

/// Each query reads catalogs while it is planned, as monitoring does all day; that is no dump.
#[tokio::test]
async fn server_whose_catalogs_are_always_read_is_tidied() {
    let (pair, source, target) = items_pair().await;
    let _cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let reader = pg(&pair.target_url).await;
    let reading = tokio::spawn(async move {
        loop {
            value(&reader, "SELECT count(*) FROM pg_class, pg_namespace").await;
        }
    });
    source
        .batch_execute("ALTER TABLE items ALTER v TYPE varchar(100); UPDATE items SET v = 'two'")
        .await
        .unwrap();
    wait_rows(&target, ITEMS, &["1|two"]).await;
    let maps =
        "SELECT count(*) FROM pg_class WHERE relname ~ '^map_[0-9]+(_[0-9]+)?$' AND relkind = 'r'";
    wait_rows(&target, maps, &["2"]).await;
    assert!(!reading.is_finished(), "the catalogs are read all the time");
    reading.abort();
}

/// The dump is under the role of `cdc` itself, and has its copies' tables locked when the
/// connection to the source is lost.
#[tokio::test]
async fn connection_that_is_lost_during_a_dump_comes_back_and_ends_nobodys_session() {
    let (pair, source, target) = items_pair().await;
    let cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    held::install(&target).await;
    let holder = held::hold(&pair, FILL).await;
    let ask = "INSERT INTO cdc.resync (origin) VALUES ('request') RETURNING id";
    value(&target, ask).await;
    held::wait_held(&target, FILL).await;
    let dump = begin_dump(&pair.target_url).await;
    let pid = value(&dump, "SELECT pg_backend_pid()").await;
    held::let_go(holder, FILL).await;
    for _ in 0..2 {
        // A resync beside it comes to its end.
        let id = value(&target, ask).await;
        let state = format!("SELECT state FROM cdc.resync WHERE id = {id}");
        wait_rows(&target, &state, &["done"]).await;
        let end = format!(
            "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name = '{}'",
            pair.slot
        );
        source.batch_execute(&end).await.unwrap();
        goes_on("beside a dump", &source, &target).await;
    }
    assert_eq!(value(&dump, "SELECT pg_backend_pid()").await, pid);
    drop(dump);
    wait_rows(&target, held::FULL_SHADOWS, &[]).await;
    drop(cdc);
}

/// The owner of the database, who is no superuser and not the role of `cdc`, dumps it again and
/// again beside resyncs, ALTERs and lost connections.
#[tokio::test]
async fn dumps_by_the_owner_of_the_database_never_fail() {
    let (pair, source, target) = items_pair().await;
    let owner = format!("owner_{}", pair.slot);
    target
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {owner};
             GRANT CREATE, USAGE ON SCHEMA public TO {owner}",
            database = pair.target_database
        ))
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    wait_rows(&target, ITEMS, &["1|one"]).await;
    // Made by `cdc`.
    let of_owner = pair.target_url.replace("postgres@", &format!("{owner}@"));
    assert_ne!(of_owner, pair.target_url);
    let dumps = tokio::spawn(async move {
        let mut dumps = 0_u32;
        let mut shadows = 0_usize;
        while dumps < 60 {
            let dump = pg(&of_owner).await;
            dump.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await
                .unwrap();
            let listed = rows(&dump, LISTED).await;
            shadows += listed
                .iter()
                .filter(|table| table.starts_with("cdc.shadow_"))
                .count();
            lock_all(&dump).await.unwrap();
            for table in &listed {
                let copy = format!("SELECT count(*) FROM {table}");
                dump.batch_execute(&copy)
                    .await
                    .unwrap_or_else(|error| panic!("{table}: {error:?}"));
            }
            for sequence in rows(
                &dump,
                "SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'S'",
            )
            .await
            {
                dump.batch_execute(&format!("SELECT last_value FROM {sequence}"))
                    .await
                    .unwrap_or_else(|error| panic!("{sequence}: {error:?}"));
            }
            dump.batch_execute("COMMIT").await.unwrap();
            dumps += 1;
        }
        shadows
    });
    let mut round = 0;
    while !dumps.is_finished() {
        round += 1;
        let size = 50 + round % 40;
        source
            .batch_execute(&format!(
                "ALTER TABLE items ALTER v TYPE {}; UPDATE items SET v = '{round}'",
                if round % 2 == 0 {
                    "text".to_owned()
                } else {
                    format!("varchar({size})")
                }
            ))
            .await
            .unwrap();
        let _ = target
            .execute("INSERT INTO cdc.resync (origin) VALUES ('request')", &[])
            .await;
        wait_rows(&target, ITEMS, &[&format!("1|{round}")]).await;
    }
    assert!(dumps.await.unwrap() > 0, "no dump has seen a shadow");
    goes_on("after the dumps", &source, &target).await;
}

/// A warehouse publishes every table of the reporting database: what `cdc` writes has an identity.
/// A lookup that has none cannot be updated any more, and stands still alone.
#[tokio::test]
async fn publication_of_all_tables_at_the_target() {
    let (mut pair, source, target) = items_pair().await;
    // A copy so large that its map gets its primary key last.
    pair.config.push_str(&ITEMS_MODEL.replace("items", "many"));
    source
        .batch_execute(
            "CREATE TABLE many (id int PRIMARY KEY, v text);
             INSERT INTO many SELECT n, repeat('m', 50) FROM generate_series(1, 20000) n",
        )
        .await
        .unwrap();
    target
        .batch_execute(
            "CREATE TABLE items_lookup (id int NOT NULL UNIQUE, v text); CREATE PUBLICATION warehouse FOR ALL TABLES;
             CREATE TABLE many_lookup (id int PRIMARY KEY, v text); INSERT INTO many_lookup VALUES (0, 'by hand')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    wait_rows(&target, ITEMS, &["1|one"]).await;
    source
        .batch_execute("UPDATE items SET v = 'two'")
        .await
        .unwrap();
    wait_rows(
        &target,
        "SELECT state, reason LIKE '%replica identity%' FROM cdc.read_model WHERE name = 'public.items_lookup'",
        &["suspended|t"],
    )
    .await;
    goes_on("beside it", &source, &target).await;
    assert_eq!(rows(&target, ITEMS).await, ["1|one"], "its last good state");
    target
        .batch_execute("ALTER TABLE items_lookup REPLICA IDENTITY FULL")
        .await
        .unwrap();
    wait_rows(&target, ITEMS, &["1|two"]).await;
    let without = "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'cdc'::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p'
        AND c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)";
    assert_eq!(rows(&target, without).await, [""; 0]);
    drop(cdc);
}
