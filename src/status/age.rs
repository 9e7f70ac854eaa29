//! How old the lookups are, and whether the stream is catching up.

use serde::Serialize;

use super::{Checkpoint, PipelineStatus, SourceSeen};
use crate::settings::Settings;

/// How old `as of` becomes in a healthy stream, besides twice the status interval: the source's
/// clock is read every two seconds.
const SLACK_SECONDS: f64 = 3.0;

/// The stream is behind the source: the walsender decodes a backlog, or the target takes changes
/// slowly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CatchingUp {
    /// The lookups are as of this time of the source.
    pub as_of: String,
    /// How long ago that is.
    pub age_seconds: f64,
    /// WAL of the source between the checkpoint and its end, others' included.
    pub bytes: u64,
}

/// How old the lookups are at most: 0 when all of the source's flushed WAL is applied, else the
/// time since `as of`. That is a time of the source's clock, so of the two clocks that could be
/// read the source's counts.
pub(super) fn age_seconds(
    checkpoint: Option<&Checkpoint>,
    source: Option<&SourceSeen>,
    target_now: Option<i64>,
) -> Option<f64> {
    let checkpoint = checkpoint?;
    if checkpoint.lag_bytes == Some(0) {
        return Some(0.0);
    }
    let as_of: jiff::Timestamp = checkpoint.commit_time.as_ref()?.parse().ok()?;
    let now = source.and_then(|source| source.now).or(target_now)?;
    let now = jiff::Timestamp::from_microsecond(now).ok()?;
    Some(now.duration_since(as_of).as_secs_f64().max(0.0))
}

/// A stream whose position has not reached a recent time for longer than a healthy stream needs.
pub(super) fn catching_up(
    pipeline: Option<&PipelineStatus>,
    checkpoint: Option<&Checkpoint>,
    age: Option<f64>,
    settings: &Settings,
) -> Option<CatchingUp> {
    pipeline.filter(|pipeline| pipeline.alive && pipeline.state == "streaming")?;
    let checkpoint = checkpoint?;
    let most = settings.status_interval.as_secs_f64() * 2.0 + SLACK_SECONDS;
    Some(CatchingUp {
        as_of: checkpoint.commit_time.clone()?,
        age_seconds: age.filter(|age| *age > most)?,
        bytes: checkpoint.lag_bytes.filter(|bytes| *bytes > 0)?,
    })
}

impl CatchingUp {
    /// `catching up with the source: as of 2026-11-25 02:11:40, 25 s behind, 1320 MB of WAL to go`
    pub(super) fn told(&self) -> String {
        format!(
            "catching up with the source: as of {}, {} behind, {} of WAL to go",
            super::text::time(&self.as_of),
            super::text::duration(self.age_seconds),
            super::text::size(self.bytes)
        )
    }
}
