//! A table of tags beside the labels, each with its read model, for tests in which one of them is
//! altered.

use tokio_postgres::Client;

use crate::support::{
    Cdc, LABELS_MODEL, Pair, labels_pair, value, wait_equal, wait_in_step, wait_log, wait_until,
};

/// The read model of the tags.
pub const TAGS_MODEL: &str = "
[[read_model]]
source = 'public.tags'
target = 'public.tags_lookup'
key = ['tag']
columns = ['tag', 'note']
";

pub const STATES: &str = "SELECT name || ' ' || state FROM cdc.read_model ORDER BY 1";
const REASON: &str =
    "SELECT coalesce(reason, '') FROM cdc.read_model WHERE name = 'public.tags_lookup'";
pub const TAGS: &str = "SELECT tag, note FROM tags ORDER BY 1";
pub const TAGS_LOOKUP: &str = "SELECT tag, note FROM tags_lookup ORDER BY 1";

pub const ALL_IN_STEP: &[&str] = &["public.labels_lookup in_step", "public.tags_lookup in_step"];
pub const TAGS_SUSPENDED: &[&str] = &[
    "public.labels_lookup in_step",
    "public.tags_lookup suspended",
];

/// Labels, and tags with these columns and constraints, altered by this SQL, with a running cdc.
pub async fn labels_and_tags(tags: &str, altered: &str) -> (Pair, Client, Client, Cdc) {
    let (mut pair, source, target) = labels_pair().await;
    pair.config += LABELS_MODEL;
    pair.config += TAGS_MODEL;
    source
        .batch_execute(&format!(
            "CREATE TABLE tags (id int NOT NULL, tag text NOT NULL, note text, {tags});
             INSERT INTO tags VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z');
             {altered}"
        ))
        .await
        .unwrap();
    let cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "\"message\":\"streaming\"").await;
    wait_equal(&source, TAGS, &target, TAGS_LOOKUP).await;
    (pair, source, target, cdc)
}

/// Waits until one of these reasons is told of the tags.
pub async fn wait_told(target: &Client, reasons: &[&str]) {
    wait_until("the reason is told", async || {
        let told = value(target, REASON).await;
        if reasons.iter().any(|reason| told.contains(reason)) {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
}
