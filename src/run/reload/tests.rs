use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::settings::Settings;
use crate::settings::reload::tests::settings;
use crate::sql::TableName;

type Reading = Result<Settings>;

fn loaded(settings: Settings) -> Loaded {
    Loaded {
        settings,
        file: None,
        warnings: Vec::new(),
    }
}

/// A configuration that reads like this, one reading after the other, and the last one for ever.
fn reads(readings: Vec<Reading>) -> Reread {
    let next = AtomicUsize::new(0);
    Reread::by(move || {
        let next = next.fetch_add(1, Ordering::Relaxed);
        let reading = readings.get(next).or(readings.last()).unwrap();
        reading.clone().map(loaded)
    })
}

/// With tags beside the labels: half of it has the labels alone.
fn whole() -> Settings {
    let mut whole = settings();
    let mut tags = whole.read_models[0].clone();
    tags.target = TableName::new("public", "tags_lookup");
    whole.read_models.push(tags);
    whole
}

fn mistake() -> Reading {
    Err(Error::configuration("a line is cut off"))
}

async fn read_of(readings: Vec<Reading>) -> Reading {
    let in_force = InForce::new(whole());
    let loaded = read_whole(&reads(readings), &in_force, Duration::ZERO).await?;
    Ok(loaded.settings)
}

#[tokio::test]
async fn what_drops_a_read_model_counts_once_it_is_read_twice() {
    let mut other_source = whole();
    other_source.read_models[0].source.name = "names".to_owned();
    let mut more = whole();
    more.read_models[1].synced_at = None;
    let half = settings;
    for (case, readings, expected) in [
        (
            "more is taken at once",
            vec![Ok(more.clone()), Ok(half())],
            more,
        ),
        ("half", vec![Ok(half()), Ok(whole())], whole()),
        (
            "half of a line",
            vec![Ok(half()), mistake(), Ok(whole())],
            whole(),
        ),
        (
            "half twice",
            vec![Ok(other_source.clone()), Ok(half()), Ok(whole())],
            whole(),
        ),
        ("removed", vec![Ok(half())], half()),
        (
            "another source",
            vec![Ok(other_source.clone())],
            other_source,
        ),
    ] {
        assert_eq!(read_of(readings).await.unwrap(), expected, "{case}");
    }
}

#[tokio::test]
async fn what_is_never_the_same_is_still_being_written() {
    let turns = 0..=u64::from(READINGS);
    let readings = turns.map(|turn| {
        let mut half = settings();
        half.status_interval = Duration::from_secs(turn);
        Ok(half)
    });
    let error = read_of(readings.collect()).await.unwrap_err();
    assert!(error.to_string().contains("still being written"), "{error}");
    let error = read_of(vec![Ok(settings()), mistake()]).await.unwrap_err();
    assert!(error.to_string().contains("a line is cut off"), "{error}");
}

#[tokio::test]
async fn a_process_that_leaves_does_not_wait_for_the_file() {
    let stop = CancellationToken::new();
    let mut shared = Shared::new(whole(), stop.clone());
    shared.reread = Some(Reread::by(move || {
        stop.cancel();
        Ok(loaded(settings()))
    }));
    reload(&shared).await.unwrap();
    assert_eq!(*shared.in_force.settings(), whole());
}
