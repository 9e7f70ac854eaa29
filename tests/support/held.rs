//! Makes a copy last as long as a test needs: what it writes into its shadow waits for locks that
//! the test holds.
//!
//! An event trigger of the test gives each shadow its triggers as soon as it is made; readers and
//! the stream notice nothing.

use tokio_postgres::Client;

use crate::support::{Pair, pg, wait_rows};

/// The source's rows are being read, and written into the shadow.
pub const FILL: u8 = 11;
/// The shadow is being brought forward by changes that came after its snapshot.
pub const CATCH_UP: u8 = 12;

/// Shadows that hold rows of a copy, and tables that are still to be dropped.
pub const FULL_SHADOWS: &str = "SELECT name FROM cdc.shadow WHERE copy IS NOT NULL OR pg_relation_size('cdc.' || name) > 0 \
    UNION ALL SELECT name FROM cdc.discarded";

/// Triggers by which every later copy waits where somebody [holds](hold) it.
pub async fn install(target: &Client) {
    target
        .batch_execute(&format!(
            "CREATE FUNCTION hold_copy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NULL;
             END$$;
             CREATE FUNCTION hold_shadow(shadow text) RETURNS void LANGUAGE plpgsql AS $$BEGIN
                 EXECUTE 'CREATE TRIGGER hold_fill BEFORE INSERT ON ' || shadow || ' FOR EACH STATEMENT EXECUTE FUNCTION public.hold_copy({FILL})';
                 EXECUTE 'CREATE TRIGGER hold_catch_up BEFORE DELETE ON ' || shadow || ' FOR EACH STATEMENT EXECUTE FUNCTION public.hold_copy({CATCH_UP})';
             END$$;
             CREATE FUNCTION hold_shadows() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
                 PERFORM public.hold_shadow(object_identity) FROM pg_event_trigger_ddl_commands() WHERE object_identity ~ '^cdc.shadow_[0-9]+_[0-9]+$';
             END$$;
             SELECT hold_shadow(oid::regclass::text) FROM pg_class WHERE relname ~ '^shadow_[0-9]' AND relkind = 'r';
             CREATE EVENT TRIGGER hold_shadows ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION hold_shadows()"
        ))
        .await
        .unwrap();
}

/// Holds copies at this step until the session that is returned is dropped.
pub async fn hold(pair: &Pair, step: u8) -> Client {
    let holder = pg(&pair.target_url).await;
    let hold = format!("SELECT pg_advisory_lock({step})");
    holder.batch_execute(&hold).await.unwrap();
    holder
}

/// Lets copies go on.
pub async fn let_go(holder: Client, step: u8) {
    let let_go = format!("SELECT pg_advisory_unlock({step})");
    holder.batch_execute(&let_go).await.unwrap();
}

/// Waits until a copy is held at this step.
pub async fn wait_held(target: &Client, step: u8) {
    let held = format!(
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid = {step} AND NOT granted"
    );
    wait_rows(target, &held, &["t"]).await;
}

/// Waits until no copy has left anything: a slot, a shadow, a session, an open transaction.
pub async fn wait_nothing_left(pair: &Pair, source: &Client, target: &Client) {
    let slot = &pair.slot;
    let slots = format!(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() AND slot_name <> '{slot}'"
    );
    let sessions = format!(
        "SELECT application_name, state FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'cdc {slot} %' \
         AND (application_name ~ ' (copy|observer|resync|progress)$' OR state LIKE 'idle in transaction%')"
    );
    wait_rows(target, FULL_SHADOWS, &[]).await;
    for (side, query) in [(source, &slots), (source, &sessions), (target, &sessions)] {
        wait_rows(side, query, &[]).await;
    }
}
