//! How long after its COMMIT a change can be read at the target: at a steady rate of commits, or
//! one transaction at a time.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_postgres::Client;

/// Distance of the commits.
const COMMIT_EVERY: Duration = Duration::from_millis(5);

/// What was seen, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub most: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, most } = self;
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms, most {most:.1} ms")
    }
}

/// Changes the row of [`super::labels`] with code C1, and waits for it in `table` of the target.
/// Commits are numbered from `first`.
pub async fn measure(
    source: &Client,
    (target, table): (&Client, &str),
    commits: u64,
    first: u64,
) -> Result<Latency> {
    let update = source
        .prepare("UPDATE labels SET label = $1 WHERE id = row_id(1)")
        .await?;
    let read = format!("SELECT label FROM {table} WHERE code = 'C1'");
    let read = target.prepare(&read).await?;
    let start = Instant::now();
    let writer = async {
        let mut committed = Vec::new();
        let mut ticks = tokio::time::interval(COMMIT_EVERY);
        for number in 0..commits {
            ticks.tick().await;
            source
                .execute(&update, &[&(first + number).to_string()])
                .await?;
            committed.push(start.elapsed());
        }
        anyhow::Ok(committed)
    };
    let reader = async {
        let mut seen: Vec<Duration> = Vec::new();
        while (seen.len() as u64) < commits {
            let label: String = target.query_one(&read, &[]).await?.get(0);
            let now = start.elapsed();
            if let Some(number) = label
                .parse::<u64>()
                .ok()
                .and_then(|label| label.checked_sub(first))
            {
                seen.resize(seen.len().max(usize::try_from(number)? + 1), now);
            }
            if now > COMMIT_EVERY * u32::try_from(commits)? + Duration::from_secs(30) {
                bail!("the last commit does not arrive");
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        anyhow::Ok(seen)
    };
    let (committed, seen) = tokio::try_join!(writer, reader)?;
    let mut taken: Vec<f64> = committed
        .iter()
        .zip(&seen)
        .map(|(from, to)| to.saturating_sub(*from).as_secs_f64() * 1000.0)
        .collect();
    taken.sort_by(f64::total_cmp);
    let at = |part: usize| taken[(taken.len() - 1) * part / 100];
    Ok(Latency {
        p50: at(50),
        p99: at(99),
        most: at(100),
    })
}

/// Changes so many rows of [`super::labels`] in one transaction, and waits for them in `table` of
/// the target: the milliseconds since the COMMIT, for each of these rounds.
pub async fn one_by_one(
    source: &Client,
    (target, table): (&Client, &str),
    rows: u64,
    rounds: std::ops::Range<u64>,
) -> Result<Vec<f64>> {
    let update = format!(
        "UPDATE labels SET label = $1 WHERE id IN (SELECT row_id(n) FROM generate_series(1, {rows}) n)"
    );
    let update = source.prepare(&update).await?;
    let read = format!("SELECT label = $1 FROM {table} WHERE code = 'C{rows}'");
    let read = target.prepare(&read).await?;
    let mut taken = Vec::new();
    for round in rounds {
        let label = format!("round {round}");
        source.execute(&update, &[&label]).await?;
        let committed = Instant::now();
        while !target.query_one(&read, &[&label]).await?.get::<_, bool>(0) {
            if committed.elapsed() > Duration::from_secs(30) {
                bail!("round {round} does not arrive");
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        taken.push(committed.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(taken)
}

/// The middle one.
pub fn median(mut taken: Vec<f64>) -> f64 {
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}
