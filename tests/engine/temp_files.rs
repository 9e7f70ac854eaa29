//! A target that gives temporary files little room: the nightly comparison of a large lookup fails,
//! and what to do is said at once, where people look.

use serde_json::Value;

use crate::support::{
    Cdc, count_log, goes_on, labels_pair, pg, value, wait_in_step, wait_log, wait_rows, wait_until,
};

#[tokio::test]
async fn too_little_room_for_temporary_files_is_said_before_and_after() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += "[resync]\nschedule = '* * * * *'\njitter = '0s'\n";
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) SELECT 'N' || n, 'n', repeat('x', 50) FROM generate_series(1, 60000) n")
        .await
        .unwrap();
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"streaming\"").await;
    cdc.stop(crate::support::Signal::Term).await;
    let check = || String::from_utf8_lossy(&Cdc::output(&pair, &["check"]).stdout).into_owned();
    assert!(!check().contains("temp_file_limit"), "{}", check());
    target
        .batch_execute(&format!(
            "ALTER DATABASE {database} SET temp_file_limit = '1MB'; ALTER DATABASE {database} SET work_mem = '64kB'",
            database = pair.target_database
        ))
        .await
        .unwrap();
    let found = check();
    assert!(
        found
            .contains("warning: target: temp_file_limit is 1 MB, and \"public.labels_lookup\" has"),
        "{found}"
    );
    assert!(found.contains("SET temp_file_limit = -1"), "{found}");
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "\"streaming\"").await;
    let problem = wait_until("the failure is told", async || {
        let output = Cdc::output(&pair, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = status["problems"].as_array().unwrap().clone();
        let told = |problem: &&Value| {
            problem["message"]
                .as_str()
                .unwrap()
                .contains("resync failed")
                && problem["message"]
                    .as_str()
                    .unwrap()
                    .contains("temp_file_limit")
        };
        problems
            .iter()
            .find(told)
            .cloned()
            .ok_or_else(|| status.to_string())
    })
    .await;
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("SET temp_file_limit = -1"), "{hint}");
    assert!(
        cdc.log().contains("SET temp_file_limit = -1"),
        "{}",
        cdc.log()
    );
    // The stream goes on meanwhile.
    source
        .batch_execute("UPDATE labels SET label = 'without room' WHERE code = 'MR'")
        .await
        .unwrap();
    let shown = "SELECT label FROM labels_lookup WHERE code = 'MR'";
    wait_rows(&target, shown, &["without room"]).await;
    assert_eq!(count_log(&cdc, "trying again"), 0, "{}", cdc.log());
    let target_again = pg(&pair.target_url).await;
    target_again
        .batch_execute(&format!(
            "ALTER DATABASE {} RESET ALL",
            pair.target_database
        ))
        .await
        .unwrap();
    assert_eq!(
        value(&pg(&pair.target_url).await, "SHOW temp_file_limit").await,
        "-1"
    );
    goes_on("with room", &source, &target).await;
}
