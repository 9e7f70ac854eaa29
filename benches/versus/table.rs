//! What the rounds of a scenario come to: the median of each figure, and how far the ratios of
//! single rounds lie apart.

use crate::scenario::Scenario;
use crate::subject::{SUBJECTS, Subject};
use crate::support::rate;

/// What one consumer needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// From the first read of the slot until the marker could be read at the target.
    pub seconds: f64,
    /// CPU seconds of the consumer's own process.
    pub consumer_cpu: f64,
    /// CPU seconds of the target's server.
    pub target_cpu: f64,
    /// CPU seconds of the source's server.
    pub source_cpu: f64,
    /// Peak of the consumer's resident memory.
    pub peak_mb: f64,
}

/// All consumers on one load, one after the other.
#[derive(Debug, Default)]
pub struct Round {
    /// In the order in which they ran.
    pub runs: Vec<(Subject, Run)>,
    /// Seconds of those who read the load and throw it away, by name.
    pub discarded: Vec<(&'static str, f64)>,
}

impl Round {
    fn of(&self, subject: Subject) -> Option<&Run> {
        self.runs
            .iter()
            .find(|(of, _)| *of == subject)
            .map(|(_, run)| run)
    }

    /// How many times as fast as native replication.
    fn ratio(&self, subject: Subject) -> Option<f64> {
        Some(self.of(Subject::Native)?.seconds / self.of(subject)?.seconds)
    }
}

/// The rounds of one scenario.
pub struct Table<'a> {
    scenario: &'a Scenario,
    changes: u64,
    rounds: Vec<Round>,
}

impl<'a> Table<'a> {
    /// Without rounds yet.
    pub fn new(scenario: &'a Scenario, changes: u64) -> Self {
        Self {
            scenario,
            changes,
            rounds: Vec::new(),
        }
    }

    /// Adds the next round.
    pub fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// Prints the medians; nothing if the scenario measures something else than rates.
    pub fn print(&self) {
        if self.rounds.iter().all(|round| round.runs.is_empty()) {
            return;
        }
        println!(
            "  {:<9} {:>7} {:>9} {:>12} {:>8} {:>8} {:>8} {:>8}",
            "", "k/s", "x native", "of rounds", "consumer", "target", "source", "peak MB"
        );
        for subject in SUBJECTS {
            self.print_subject(subject);
        }
        let cdc = self.ratios(Subject::Cdc);
        if let Some((reference, goal)) = self.scenario.reference {
            let verdict = if median(&cdc) >= goal {
                "reached"
            } else {
                "missed"
            };
            println!(
                "  goal {goal} x native {verdict} (reference machine: native {reference} k/s)"
            );
        }
        for name in ["ceiling", "recvlog."] {
            let seconds: Vec<f64> = self
                .rounds
                .iter()
                .flat_map(|round| &round.discarded)
                .filter(|(of, _)| *of == name)
                .map(|(_, seconds)| *seconds)
                .collect();
            if !seconds.is_empty() {
                println!(
                    "  {:<9} {:>7.1}",
                    name,
                    rate(self.changes, median(&seconds))
                );
            }
        }
    }

    fn print_subject(&self, subject: Subject) {
        let runs: Vec<&Run> = self
            .rounds
            .iter()
            .filter_map(|round| round.of(subject))
            .collect();
        let figure =
            |of: fn(&Run) -> f64| median(&runs.iter().map(|run| of(run)).collect::<Vec<_>>());
        let ratios = self.ratios(subject);
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "  {:<9} {:>7.1} {:>9.2} {:>12} {:>7.2}s {:>7.2}s {:>7.2}s {:>8.1}",
            subject.name(),
            rate(self.changes, figure(|run| run.seconds)),
            median(&ratios),
            format!("{least:.2}-{most:.2}"),
            figure(|run| run.consumer_cpu),
            figure(|run| run.target_cpu),
            figure(|run| run.source_cpu),
            figure(|run| run.peak_mb)
        );
    }

    fn ratios(&self, subject: Subject) -> Vec<f64> {
        self.rounds
            .iter()
            .filter_map(|round| round.ratio(subject))
            .collect()
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => 0.0,
        (1, Some(one)) => *one,
        (_, Some(upper)) => f64::midpoint(sorted[middle - 1], *upper),
    }
}
