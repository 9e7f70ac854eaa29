//! What `verify`, `resync` and `status` say of rows that the lookup does not take, of doubled keys,
//! and of differences.

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::{Cdc, LABELS_MODEL, Pair, labels_pair, wait_log, wait_rows};

/// What a command printed, and its exit code.
async fn run(pair: &Pair, arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = Cdc::command(pair, arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code())
}

async fn json(pair: &Pair, arguments: &[&str]) -> Value {
    let (text, _) = run(pair, arguments).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

const CODES: &str = "SELECT code FROM labels_lookup ORDER BY code";

/// Four live rows of which the lookup takes three, and one more whose key another one has.
async fn with_a_rejected_row() -> (Pair, Client, Client, Cdc) {
    let (pair, source, target) = labels_pair().await;
    target
        .batch_execute("ALTER TABLE labels_lookup ALTER label TYPE varchar(5)")
        .await
        .unwrap();
    source
        .batch_execute(
            "DROP INDEX labels_code_live;
             INSERT INTO labels (code, label, display_name) VALUES ('LONG', 'too long', 'l'), ('DR', 'Dr.', 'Doctor')",
        )
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_rows(&target, CODES, &["DR", "MR", "MRS"]).await;
    wait_rows(&target, "SELECT key FROM cdc.rejected", &["LONG"]).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    (pair, source, target, cdc)
}

/// It said `3 right` and ended with 0.
#[tokio::test]
async fn verify_and_resync_tell_of_rejected_rows_and_of_doubled_keys() {
    let (pair, source, target, _cdc) = with_a_rejected_row().await;
    let differs = (
        "public.labels_lookup: 0 missing, 0 extra, 0 different, 3 right, 1 rejected, 1 duplicate\n  rejected: LONG (22001 label)\n"
            .to_owned(),
        Some(1),
    );
    assert_eq!(run(&pair, &["verify"]).await, differs);
    assert_eq!(run(&pair, &["resync", "--dry-run"]).await, differs);
    let repaired = (
        "public.labels_lookup: 3 rows compared; repaired: 0 missing, 0 different, 0 extra; 3 were right; 1 rejected, 1 duplicate\n  \
         rejected: LONG (22001 label)\n"
            .to_owned(),
        Some(0),
    );
    assert_eq!(run(&pair, &["resync"]).await, repaired);
    // A constraint refuses a row that the types take, and one whose key the lookup's type does not
    // take has none.
    target
        .batch_execute("ALTER TABLE labels_lookup ADD CONSTRAINT no_x CHECK (label <> 'x'); ALTER TABLE labels_lookup ALTER code TYPE varchar(4)")
        .await
        .unwrap();
    source
        .batch_execute(
            "UPDATE labels SET label = 'x' WHERE code = 'MR';
             INSERT INTO labels (id, code, label, display_name) VALUES ('00000000-0000-0000-0000-000000000001', 'FIVE5', 'l', 'l')",
        )
        .await
        .unwrap();
    let rejected = "SELECT coalesce(key, '-') FROM cdc.rejected ORDER BY 1";
    wait_rows(&target, rejected, &["-", "LONG", "MR"]).await;
    let found = json(&pair, &["verify", "--json", "--limit", "2"]).await;
    let found = &found["public.labels_lookup"];
    for (kind, expected) in [
        ("missing", 0),
        ("extra", 0),
        ("different", 0),
        ("same", 2),
        ("rejected", 3),
        ("waiting", 1),
    ] {
        assert_eq!(found[kind], expected, "{kind}: {found}");
    }
    assert_eq!(
        found["keys"]["rejected"].as_array().unwrap().len(),
        2,
        "{found}"
    );
    assert_eq!(found["rejections"].as_array().unwrap().len(), 2, "{found}");
    let (text, code) = run(&pair, &["verify"]).await;
    let expected = [
        "public.labels_lookup: 0 missing, 0 extra, 0 different, 2 right, 3 rejected, 1 duplicate",
        "  rejected: LONG (22001 label)",
        "  rejected: MR (23514 no_x)",
        "  rejected: 00000000-0000-0000-0000-000000000001 (22001 code)",
    ];
    assert_eq!(
        (text.lines().collect::<Vec<_>>(), code),
        (expected.to_vec(), Some(1))
    );
    let resynced = json(&pair, &["resync", "--json"]).await;
    let resynced = &resynced["public.labels_lookup"];
    assert_eq!(
        (&resynced["rejected"], &resynced["waiting"]),
        (&3.into(), &1.into()),
        "{resynced}"
    );
    assert_eq!(
        resynced["rejections"].as_array().unwrap().len(),
        3,
        "{resynced}"
    );
}

/// It said `OK`, in step, right after a comparison had found that it is not.
#[tokio::test]
async fn status_tells_of_differences_until_the_next_comparison() {
    let (pair, _source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_rows(&target, CODES, &["DR", "MR", "MRS"]).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    let spoil = "UPDATE labels_lookup SET label = 'edited' WHERE code IN ('DR', 'MR')";
    for repair in [&["resync"][..], &["verify"]] {
        target.batch_execute(spoil).await.unwrap();
        assert_eq!(
            run(&pair, &["status"]).await.1,
            Some(0),
            "nothing has compared"
        );
        assert_eq!(run(&pair, &["verify"]).await.1, Some(1));
        let seen = json(&pair, &["status", "--json"]).await;
        assert_eq!(
            (&seen["verdict"], &seen["healthy"]),
            (&"differs".into(), &false.into()),
            "{seen}"
        );
        let compared = &seen["read_models"][0]["last_comparison"];
        assert_eq!(compared["differing"], 2, "{seen}");
        assert!(compared["at"].as_str().unwrap().ends_with('Z'), "{seen}");
        let (text, code) = run(&pair, &["status"]).await;
        assert!(
            text.starts_with(
                "DIFFERS   public.labels_lookup differs from its source in 2 rows, as the comparison of 20"
            ),
            "{text}"
        );
        assert!(text.contains("cdc resync") && code == Some(1), "{text}");
        if repair == ["verify"] {
            // Another hand has put it right.
            target
                .batch_execute(
                    "UPDATE labels_lookup SET label = initcap(code) || '.' WHERE code IN ('DR', 'MR')",
                )
                .await
                .unwrap();
        }
        assert_eq!(run(&pair, repair).await.1, Some(0));
        let seen = json(&pair, &["status", "--json"]).await;
        assert_eq!(seen["verdict"], "ok", "{seen}");
        assert_eq!(
            seen["read_models"][0]["last_comparison"]["differing"], 0,
            "{seen}"
        );
    }
}

/// It printed nothing and ended with 0.
#[tokio::test]
async fn a_read_model_that_the_running_cdc_does_not_know_is_not_called_right() {
    let (mut pair, _source, target) = labels_pair().await;
    let cdc = Cdc::run(&pair);
    wait_rows(&target, CODES, &["DR", "MR", "MRS"]).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    pair.config += LABELS_MODEL;
    pair.config += "
[[read_model]]
source = 'public.labels'
target = 'public.others'
key = ['code']
columns = ['code']
";
    for command in ["verify", "resync"] {
        for (name, known) in [("public.labels_lookup", true), ("public.others", false)] {
            let (text, code) = run(&pair, &[command, name]).await;
            assert_eq!(
                (text.contains(name), code),
                (known, Some(if known { 0 } else { 1 })),
                "{command}: {text}"
            );
        }
        let (text, code) = run(&pair, &[command]).await;
        assert!(
            text.contains("public.labels_lookup: ") && code == Some(1),
            "{text}"
        );
    }
}
