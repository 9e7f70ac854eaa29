//! Resyncs that were asked for: one that cannot be carried out holds up nothing else, and can be
//! cancelled.

use tokio_postgres::Client;

use crate::support::{
    Cdc, LABELS_MODEL, Side, database_pair, labels_pair_on, own_cluster, pg, seeded, value,
    wait_in_step, wait_log, wait_rows,
};

const OTHERS_MODEL: &str = "
[[read_model]]
source = 'public.others'
target = 'public.others_lookup'
key = ['id']
columns = ['id', 'v']
";

/// No copy of the second read model can be made: the target is full as soon as one begins.
const FULL: &str = "
CREATE FUNCTION public.is_full() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';
END$$;
CREATE TRIGGER is_full BEFORE INSERT ON cdc.shadow_2_1 FOR EACH STATEMENT EXECUTE FUNCTION public.is_full()";

async fn ask(target: &Client, read_model: &str) -> String {
    let ask = format!(
        "INSERT INTO cdc.resync (read_models, origin) VALUES ('{{{read_model}}}', 'request') RETURNING id"
    );
    value(target, &ask).await
}

/// What `cdc resync` does when it is interrupted.
async fn cancel(target: &Client, id: &str) {
    let cancel = format!(
        "UPDATE cdc.resync SET state = 'failed', finished_at = now(), error = 'cancelled' WHERE id = {id} AND lsn IS NULL"
    );
    target.batch_execute(&cancel).await.unwrap();
}

async fn wait_state(target: &Client, id: &str, state: &str) {
    let seen = format!("SELECT concat_ws(' ', state, error) FROM cdc.resync WHERE id = {id}");
    wait_rows(target, &seen, &[state]).await;
}

#[tokio::test]
async fn a_request_that_fails_again_and_again_holds_up_nothing_else() {
    let mut pair = database_pair().await;
    pair.config = format!("{}{LABELS_MODEL}{OTHERS_MODEL}", pair.config);
    let (source, target) = seeded(&pair).await;
    source
        .batch_execute(
            "CREATE TABLE others (id int PRIMARY KEY, v text); INSERT INTO others VALUES (1, 'one')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    target.batch_execute(FULL).await.unwrap();
    let fails = ask(&target, "public.others_lookup").await;
    let waits =
        format!("SELECT waiting_for LIKE '%no space left%' FROM cdc.resync WHERE id = {fails}");
    wait_rows(&target, &waits, &["t"]).await;
    // Another request, and a read model that is suspended meanwhile.
    let other = ask(&target, "public.labels_lookup").await;
    wait_state(&target, &other, "done").await;
    source
        .batch_execute(
            "ALTER TABLE labels ALTER label TYPE text; UPDATE labels SET label = 'as text' WHERE code = 'MR'",
        )
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    let in_step = "SELECT count(*) FROM cdc.read_model WHERE state = 'in_step'";
    wait_rows(&target, in_step, &["2"]).await;
    wait_rows(&target, &waits, &["t"]).await;
    // Nobody wants it any more: it is not carried out when it could be.
    cancel(&target, &fails).await;
    target
        .batch_execute("DROP FUNCTION is_full CASCADE")
        .await
        .unwrap();
    let last = ask(&target, "public.others_lookup").await;
    wait_state(&target, &last, "done").await;
    wait_state(&target, &fails, "failed cancelled").await;
}

#[tokio::test]
async fn a_request_that_is_being_carried_out_can_be_cancelled() {
    // A server of its own: an open transaction is in the way of every slot.
    let cluster = own_cluster(Side::Source, "asked");
    let (pair, source, target) = labels_pair_on(&cluster, crate::support::target()).await;
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    // Its slot cannot be made before this ends.
    let writes = pg(&pair.source_url).await;
    writes
        .batch_execute("BEGIN; CREATE TABLE written (n int)")
        .await
        .unwrap();
    let id = ask(&target, "public.labels_lookup").await;
    let waits =
        format!("SELECT waiting_for LIKE 'open transactions%' FROM cdc.resync WHERE id = {id}");
    wait_rows(&target, &waits, &["t"]).await;
    cancel(&target, &id).await;
    wait_log(&cdc, "a resync was cancelled").await;
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '{}_copy%'",
        pair.slot
    );
    wait_rows(&source, &slots, &["0"]).await;
    writes.batch_execute("ROLLBACK").await.unwrap();
    let next = ask(&target, "public.labels_lookup").await;
    wait_state(&target, &next, "done").await;
    wait_state(&target, &id, "failed cancelled").await;
}
