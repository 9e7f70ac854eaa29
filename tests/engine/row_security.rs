//! Row-level security that is switched on while `cdc` runs, for a role that it applies to: the
//! stream is not touched by it, a copy would lack rows in silence. So the copy fails and says why,
//! and the lookup keeps its rows.

use tokio_postgres::Client;

use crate::support::{
    Cdc, Pair, Signal, goes_on, labels_pair, rows, value, wait_in_step, wait_log, wait_rows,
    wait_until,
};

const SAID: &str = "row-level security hides rows";

/// A pair whose source is read by a role that owns nothing and is exempt from nothing.
async fn as_ordinary_role() -> (Pair, Client, Client, String) {
    let (mut pair, source, target) = labels_pair().await;
    let role = format!("ordinary_{}", pair.slot);
    source
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON labels TO {role}; CREATE PUBLICATION cdc FOR TABLE labels"
        ))
        .await
        .unwrap();
    pair.source_url = pair.source_url.replace("postgres@", &format!("{role}@"));
    (pair, source, target, role)
}

/// Asks for a resync of the running process; returns its number.
async fn ask(target: &Client) -> String {
    value(
        target,
        "INSERT INTO cdc.resync (origin) VALUES ('request') RETURNING id",
    )
    .await
}

#[tokio::test]
async fn resync_under_row_security_says_so_and_takes_no_row_away() {
    let (pair, source, target, role) = as_ordinary_role().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    // No policy: every row is hidden from the role.
    source
        .batch_execute("ALTER TABLE labels ENABLE ROW LEVEL SECURITY")
        .await
        .unwrap();
    // The stream knows nothing of policies.
    source
        .batch_execute("UPDATE labels SET label = 'streamed' WHERE code = 'MR'")
        .await
        .unwrap();
    let before = wait_in_step(&source, &target).await;
    let id = ask(&target).await;
    let failed =
        format!("SELECT state || ' ' || (error LIKE '%{SAID}%') FROM cdc.resync WHERE id = {id}");
    wait_rows(&target, &failed, &["failed true"]).await;
    assert_eq!(crate::support::lookup(&target).await, before);
    // By `cdc resync`, to whoever ran it, with what helps.
    let asked = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&asked, &["resync"]))
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told.contains(SAID), "{told}");
    // By `cdc status`, where nobody waits for the answer.
    let asked = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&asked, &["status"])).await;
    let told = String::from_utf8(output.unwrap().stdout).unwrap();
    // Long lines are broken at blanks.
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("the last resync failed") && told.contains(SAID),
        "{told}"
    );
    // By the log.
    wait_log(&cdc, "BYPASSRLS;").await;
    // By `cdc check`.
    let asked = pair.clone();
    let output = tokio::task::spawn_blocking(move || Cdc::output(&asked, &["check"]))
        .await
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("row-level security hides rows from role"),
        "{output:?}"
    );
    // It is mended as it says.
    source
        .batch_execute(&format!("ALTER ROLE {role} BYPASSRLS"))
        .await
        .unwrap();
    let id = ask(&target).await;
    let done = format!("SELECT state FROM cdc.resync WHERE id = {id}");
    wait_rows(&target, &done, &["done"]).await;
    goes_on("exempt", &source, &target).await;
    assert!(cdc.is_running());
}

/// A policy that shows a part of the rows is no better, and a new start finds it before anything is
/// copied.
#[tokio::test]
async fn healing_under_a_policy_keeps_the_rows_until_the_role_is_exempt() {
    let (pair, source, target, role) = as_ordinary_role().await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    source
        .batch_execute(
            "CREATE POLICY few ON labels FOR SELECT USING (code = 'DR'); ALTER TABLE labels ENABLE ROW LEVEL SECURITY",
        )
        .await
        .unwrap();
    let before = wait_in_step(&source, &target).await;
    assert!(before.len() > 1);
    cdc.stop(Signal::Term).await;
    crate::support::on_free_slot(
        &source,
        &format!("SELECT pg_drop_replication_slot('{}')", pair.slot),
    )
    .await;
    source
        .batch_execute("UPDATE labels SET label = 'lost' WHERE code = 'MR'")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_until("the read model says why it is not copied", async || {
        let told = rows(
            &target,
            "SELECT state || ' ' || reason || ' / ' || hint FROM cdc.read_model",
        )
        .await;
        match told.first() {
            Some(text)
                if text.starts_with("suspended")
                    && text.contains(SAID)
                    && text.contains("BYPASSRLS") =>
            {
                Ok(())
            }
            _ => Err(format!("{told:?}")),
        }
    })
    .await;
    assert_eq!(
        crate::support::lookup(&target).await,
        before,
        "the last good state"
    );
    source
        .batch_execute(&format!("ALTER ROLE {role} BYPASSRLS"))
        .await
        .unwrap();
    goes_on("exempt", &source, &target).await;
    assert!(cdc.is_running());
}

/// With nothing copied yet there is nothing to serve: it does not start.
#[tokio::test]
async fn first_copy_under_row_security_is_refused() {
    let (pair, source, target, _) = as_ordinary_role().await;
    source
        .batch_execute("ALTER TABLE labels ENABLE ROW LEVEL SECURITY")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    assert_eq!(cdc.wait().await.code(), Some(2), "{}", cdc.log());
    assert!(cdc.log().contains(SAID), "{}", cdc.log());
    assert_eq!(
        value(&target, "SELECT count(*) FROM labels_lookup").await,
        "0"
    );
}
