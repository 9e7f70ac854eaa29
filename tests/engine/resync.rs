//! Comparisons and resyncs that somebody asks for, beside the stream.

use crate::support::{Cdc, labels_pair, lookup, wait_in_step};

/// What a command printed, and its exit code.
fn run(pair: &crate::support::Pair, arguments: &[&str]) -> (String, Option<i32>) {
    let output = Cdc::output(pair, arguments);
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
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
    for wrong in [&["verify", "--limit", "10001"][..], &["resync", "--limit", "5"]] {
        assert_eq!(run(&pair, wrong).1, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn status_tells_when_the_turn_of_this_pipeline_comes() {
    let (mut pair, source, target) = labels_pair().await;
    pair.config.push_str("[resync]\njitter = \"2h\"\n");
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    crate::wait_log(&cdc, "streaming").await;
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
