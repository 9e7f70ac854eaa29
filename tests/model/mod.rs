//! The promise without servers: random histories of a source table, as the bytes that pgoutput
//! would send of them, go through the crate's decoder and its consumer, with pauses, chunks,
//! copies, merges, shutdowns, DDL, lost connections and crashes in between; a writer in memory
//! brings the lookups along. After every step they equal the live rows of the source as of the
//! stored position.
//!
//! A history that goes wrong is made as small as it can be and printed as SQL for psql.
//! `CDC_TEST_SEED` replays one history, `CDC_TEST_HISTORIES` says how many are tried.

pub mod author;
pub mod copy;
pub mod feed;
pub mod history;
pub mod lookups;
pub mod player;
pub mod server;
pub mod source;
pub mod statement;
pub mod text;
pub mod wire;
pub mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use history::History;

/// Histories of a run that is not told otherwise.
const HISTORIES: u64 = 5_000;

/// A number from the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Plays the history of this seed; one that goes wrong is shown as SQL.
fn check(seed: u64) {
    let history = History::any(seed);
    if let Err(found) = history
        .play()
        .expect("the author writes what a server accepts")
    {
        let small = history.shrink();
        let (why, trace) = match small.play() {
            Ok(Err(found)) => found,
            _ => found,
        };
        panic!(
            "CDC_TEST_SEED={seed}: {why}\n{}\nThe smallest history that goes wrong, {:?}:\n\n{}",
            trace.join("\n"),
            small.kind,
            small.sql()
        );
    }
}

#[test]
fn lookups_equal_the_source_after_every_batch() {
    if let Some(seed) = number("CDC_TEST_SEED") {
        return check(seed);
    }
    let first = fastrand::u64(..1 << 32);
    let count = number("CDC_TEST_HISTORIES").unwrap_or(HISTORIES);
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                seeds
                    .take_while(|seed| *seed < first + count)
                    .for_each(check);
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::as_conversions)]
    let rate = count as f64 / seconds;
    eprintln!("{count} histories from seed {first} in {seconds:.1} s: {rate:.0} a second");
}
