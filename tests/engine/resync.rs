//! Comparisons and resyncs that somebody asks for, beside the stream.

use crate::support::{
    self, Cdc, Side, labels_pair, labels_pair_on, lookup, own_cluster, pg, value, wait_in_step,
    wait_until,
};

/// What a command printed, and its exit code.
fn run(pair: &crate::support::Pair, arguments: &[&str]) -> (String, Option<i32>) {
    let output = Cdc::output(pair, arguments);
    (
        String::from_utf8(output.stdout).unwrap(),
        output.status.code(),
    )
}

#[tokio::test]
async fn verify_names_as_many_keys_as_asked_and_repairs_nothing() {
    let (pair, source, target) = labels_pair().await;
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) SELECT 'L' || n, 'l', 'd' FROM generate_series(10, 49) n")
        .await
        .unwrap();
    let _cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    assert_eq!(
        run(&pair, &["verify"]),
        (
            "public.labels_lookup: 0 missing, 0 extra, 0 different, 43 right\n".to_owned(),
            Some(0)
        )
    );
    target
        .batch_execute(
            "UPDATE labels_lookup SET label = 'edited' WHERE code LIKE 'L%';
             DELETE FROM labels_lookup WHERE code = 'MR';
             INSERT INTO labels_lookup (code, label, display_name) VALUES ('ZZ', 'z', 'z')",
        )
        .await
        .unwrap();
    let edited = lookup(&target).await;
    let found = "public.labels_lookup: 1 missing, 1 extra, 40 different, 2 right\n";
    for command in [&["verify"][..], &["resync", "--dry-run"]] {
        let limited = [command, &["--limit", "2"]].concat();
        let (text, code) = run(&pair, &limited);
        let mut lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        lines.sort_unstable();
        assert!(text.starts_with(found), "{text}");
        let expected = [
            "different: 38 more (--limit N names N of them)",
            "different: L10",
            "different: L11",
            "extra: ZZ",
            "missing: MR",
        ];
        assert_eq!((lines.as_slice(), code), (&expected[..], Some(1)), "{text}");
    }
    let (text, _) = run(&pair, &["verify"]);
    assert_eq!(text.matches("different: L").count(), 20, "{text}");
    let (text, _) = run(&pair, &["verify", "--limit", "0", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let found = &found["public.labels_lookup"];
    assert_eq!(found["different"], 40);
    assert!(
        found["keys"]
            .as_object()
            .unwrap()
            .values()
            .all(|keys| keys.as_array().unwrap().is_empty())
    );
    assert_eq!(lookup(&target).await, edited, "nothing was repaired");
    // More than there is room for, and where nothing is named.
    for wrong in [
        &["verify", "--limit", "10001"][..],
        &["resync", "--limit", "5"],
    ] {
        assert_eq!(run(&pair, wrong).1, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn status_tells_when_the_turn_of_this_pipeline_comes() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config.push_str("[resync]\njitter = \"2h\"\n");
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    crate::support::wait_log(&cdc, "streaming").await;
    let status = |arguments: &[&str]| run(&pair, arguments).0;
    let json: serde_json::Value = serde_json::from_str(&status(&["status", "--json"])).unwrap();
    let schedule = &json["resync_schedule"];
    let delay = schedule["delay_seconds"].as_i64().unwrap();
    assert!((0..=7200).contains(&delay), "{schedule}");
    let next: jiff::Timestamp = schedule["next_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (next.as_second() - delay).rem_euclid(86_400),
        2 * 3600,
        "{schedule}"
    );
    assert!(next > jiff::Timestamp::now());
    let again: serde_json::Value = serde_json::from_str(&status(&["status", "--json"])).unwrap();
    assert_eq!(again["resync_schedule"], *schedule);
    let text = next.to_string().replace('T', " ").replace('Z', "");
    assert!(
        status(&["status"]).contains(&format!("next {text}")),
        "{}",
        status(&["status"])
    );
    assert!(
        cdc.log().contains(&format!("resync_delay_s={delay}"))
            || cdc.log().contains(&format!("\"resync_delay_s\":{delay}"))
    );
}

/// Waits until `cdc status --json` is as it should be.
async fn wait_status(
    pair: &crate::support::Pair,
    what: &str,
    holds: impl Fn(&serde_json::Value) -> bool,
) -> String {
    let pair = pair.clone();
    wait_until(what, async || {
        let pair = pair.clone();
        let seen = tokio::task::spawn_blocking(move || {
            (
                run(&pair, &["status", "--json"]).0,
                run(&pair, &["status"]).0,
            )
        });
        let (json, text) = seen.await.unwrap();
        if holds(&serde_json::from_str(&json).unwrap()) {
            // Long lines are broken at blanks.
            Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
        } else {
            Err(json)
        }
    })
    .await
}

/// An open transaction of the source holds up every kind of copy; `status` names its process.
#[tokio::test]
async fn status_names_who_keeps_a_copy_from_beginning() {
    // On the shared server it would hold up the copies of the other tests.
    let cluster = own_cluster(Side::Source, "blocked");
    let (mut pair, source, target) = labels_pair_on(&cluster, support::target()).await;
    pair.config.push_str("[resync]\nschedule = \"* * * * *\"\n");
    let blocker = pg(&pair.source_url).await;
    let pid = value(&blocker, "SELECT pg_backend_pid()").await;
    let block = "BEGIN; UPDATE labels SET label = label WHERE code = 'MR'";
    blocker.batch_execute(block).await.unwrap();
    let waits = |text: &serde_json::Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains(&format!("process {pid}")) && text.contains("since 20")
    };
    // The first copy.
    let _cdc = Cdc::run(&pair);
    let text = wait_status(&pair, "the first copy names the process", |json| {
        waits(&json["pipeline"]["waiting_for"])
    })
    .await;
    assert!(text.contains(&format!("process {pid}")), "{text}");
    blocker.batch_execute("COMMIT").await.unwrap();
    wait_in_step(&source, &target).await;
    wait_status(&pair, "nothing waits", |json| {
        json["pipeline"]["waiting_for"].is_null()
    })
    .await;
    // The scheduled one: due now, as if the last one had been two minutes ago.
    blocker.batch_execute(block).await.unwrap();
    target
        .batch_execute("UPDATE cdc.resync SET started_at = now() - interval '2 minutes'")
        .await
        .unwrap();
    let mut cdc = _cdc;
    cdc.stop(crate::support::Signal::Term).await;
    let _cdc = Cdc::run(&pair);
    let text = wait_status(&pair, "the scheduled one names the process", |json| {
        let newest = &json["resyncs"][0];
        newest["origin"] == "schedule" && waits(&newest["waiting_for"])
    })
    .await;
    assert!(text.contains(&format!("process {pid}")), "{text}");
    blocker.batch_execute("COMMIT").await.unwrap();
    let done = "SELECT count(*) > 0 FROM cdc.resync WHERE origin = 'schedule' AND state = 'done' AND waiting_for IS NULL";
    crate::support::wait_rows(&target, done, &["t"]).await;
}

/// A copy that takes a few seconds; it is looked at meanwhile.
#[tokio::test]
async fn progress_of_a_copy_is_shown_while_it_lasts() {
    let (pair, source, _target) = labels_pair().await;
    source
        .batch_execute("INSERT INTO labels (code, label, display_name) SELECT 'L' || n, repeat('x', 50), repeat('y', 50) FROM generate_series(1, 1000000) n; ANALYZE labels")
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    let text = wait_status(&pair, "the copy shows its progress", |json| {
        let copy = &json["read_models"][0]["copy"];
        copy["rows"].as_i64() > Some(0)
            && copy["bytes"].as_i64() > Some(0)
            && copy["percent"].is_i64()
            && copy["rows_per_second"].is_f64()
    })
    .await;
    assert!(text.contains("copy public.labels_lookup: "), "{text}");
    crate::support::wait_log(&cdc, "\"copied\"").await;
    wait_status(&pair, "the copy has ended", |json| {
        json["read_models"][0]["copy"].is_null() && json["read_models"][0]["rows"] == 1_000_003
    })
    .await;
}
