//! The history of one group in one round: every committed state, and whether what readers saw was
//! one of them.
//!
//! A read model in step shows exactly what its checkpoint says, with one exception: what its table
//! became by DDL that the stream says nothing of may come later, as one step. A read model that is
//! suspended shows an older state. Neither goes back. After changes that PostgreSQL never puts into
//! the stream (TRUNCATE of one partition, a rewrite that changes values, a table that somebody took
//! out of the publication) rows of several states may be seen together until it is copied, but none
//! that never was, and every row that was there all the time.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::tables::{MODELS, Which};

/// Lines that are shown of a difference.
const SHOWN: usize = 12;

/// The rows of a lookup, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    pub hash: u64,
    pub lines: Vec<String>,
}

impl Content {
    pub fn new(mut lines: Vec<String>) -> Arc<Self> {
        lines.sort();
        let mut hasher = DefaultHasher::new();
        lines.hash(&mut hasher);
        Arc::new(Self {
            hash: hasher.finish(),
            lines,
        })
    }
}

/// A committed transaction.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Positions of the source's WAL between which its commit record lies.
    pub before: u64,
    pub after: u64,
    /// What each lookup should show of it; `None` where the table cannot be followed as it is.
    pub states: [Option<Arc<Content>>; MODELS.len()],
    pub unstreamed: Which,
    pub blurred: Which,
}

/// What one look showed of one lookup.
#[derive(Debug, Clone)]
pub struct Sample {
    /// From the start of the campaign.
    pub at: Duration,
    pub content: Arc<Content>,
    /// Whether the bookkeeping said, in the same snapshot, that it is in step.
    pub in_step: bool,
    /// The checkpoint of that snapshot.
    pub lsn: u64,
}

/// The commits of one group in a round; the first one stands for everything before.
#[derive(Debug, Default)]
pub struct History {
    pub commits: Vec<Commit>,
}

/// How one read model's looks are judged, one after the other.
struct Judge<'a> {
    commits: &'a [Commit],
    model: usize,
    places: HashMap<u64, Vec<usize>>,
    /// The newest state that was seen.
    reached: usize,
    /// The newest state that was seen before rows of several states could be seen together.
    blurred_from: Option<usize>,
}

impl History {
    /// What is wrong with these looks at a read model, if anything is.
    pub fn check(&self, model: usize, samples: &[Sample]) -> Result<(), String> {
        let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, commit) in self.commits.iter().enumerate() {
            if let Some(state) = &commit.states[model] {
                places.entry(state.hash).or_default().push(place);
            }
        }
        let mut judge = Judge {
            commits: &self.commits,
            model,
            places,
            reached: 0,
            blurred_from: None,
        };
        for (number, sample) in samples.iter().enumerate() {
            if let Err(why) = judge.look(sample) {
                return Err(judge.explain(samples, number, &why));
            }
        }
        Ok(())
    }
}

impl Judge<'_> {
    fn look(&mut self, sample: &Sample) -> Result<(), String> {
        let places = self
            .places
            .get(&sample.content.hash)
            .map_or(&[][..], Vec::as_slice);
        let later = &places[places.partition_point(|place| *place < self.reached)..];
        if let Some(place) = later.iter().find(|place| self.may_be_at(**place, sample)) {
            self.reached = *place;
            return Ok(());
        }
        let why = match (later.first(), places.last()) {
            (Some(place), _) => {
                let (least, most) = self.bounds(sample);
                format!(
                    "shows the state after commit {place}, while it is in step and the checkpoint says between {least} and {most}"
                )
            }
            (None, Some(place)) => {
                format!(
                    "goes back to the state after commit {place}, after {} was seen",
                    self.reached
                )
            }
            (None, None) => "shows what was the state after no commit".to_owned(),
        };
        self.blurred(sample).map_err(|more| why + &more)
    }

    /// The commits that the checkpoint holds for certain, and those that it can hold at most.
    fn bounds(&self, sample: &Sample) -> (usize, usize) {
        let count = |held: &dyn Fn(&Commit) -> bool| {
            self.commits.iter().filter(|commit| held(commit)).count()
        };
        let least = count(&|commit| commit.after <= sample.lsn);
        let most = count(&|commit| commit.before < sample.lsn);
        (least.saturating_sub(1), most.saturating_sub(1))
    }

    fn may_be_at(&self, place: usize, sample: &Sample) -> bool {
        if !sample.in_step {
            return true;
        }
        let (least, most) = self.bounds(sample);
        let stepped = |commit: &Commit| commit.unstreamed[self.model] || commit.blurred[self.model];
        place <= most && (place >= least || self.commits[place + 1..=least].iter().any(stepped))
    }

    /// Whether rows of several states may be seen together, and these are.
    fn blurred(&mut self, sample: &Sample) -> Result<(), String> {
        let Some(first) = self
            .commits
            .iter()
            .position(|commit| commit.blurred[self.model])
        else {
            return Err(String::new());
        };
        let from = *self.blurred_from.get_or_insert(self.reached.min(first));
        let states: Vec<BTreeSet<&String>> = self.commits[from..]
            .iter()
            .filter_map(|commit| Some(commit.states[self.model].as_ref()?.lines.iter().collect()))
            .collect();
        let seen: BTreeSet<&String> = sample.content.lines.iter().collect();
        if let Some(line) = seen
            .iter()
            .find(|line| !states.iter().any(|state| state.contains(*line)))
        {
            return Err(format!("; no state since {from} had the row {line}"));
        }
        let always = |line: &&String| states.iter().all(|state| state.contains(*line));
        let first_state = states.first().cloned().unwrap_or_default();
        match first_state
            .into_iter()
            .find(|line| always(line) && !seen.contains(*line))
        {
            Some(line) => Err(format!("; every state since {from} had the row {line}")),
            None => Ok(()),
        }
    }

    fn explain(&self, samples: &[Sample], number: usize, why: &str) -> String {
        let sample = &samples[number];
        let lookup = MODELS[self.model].lookup;
        let mut text = format!("{lookup}, look {number} at {:.3?}, {why}\n", sample.at);
        let states = || {
            self.commits
                .iter()
                .enumerate()
                .filter_map(|(place, commit)| Some((place, commit.states[self.model].as_ref()?)))
        };
        let nearest = states().min_by_key(|(place, state)| {
            (
                distance(&sample.content, state),
                place.abs_diff(self.reached),
            )
        });
        for (place, state) in nearest
            .into_iter()
            .chain(states().filter(|(place, _)| *place == self.reached))
        {
            let _ = writeln!(text, "against the state after commit {place}:");
            text.push_str(&difference(&sample.content, state));
        }
        let _ = writeln!(text, "looks before and after:");
        for (at, sample) in samples.iter().enumerate() {
            if at + 6 < number || at > number + 4 {
                continue;
            }
            let mut places: Vec<usize> = self
                .places
                .get(&sample.content.hash)
                .cloned()
                .unwrap_or_default();
            places.truncate(10);
            let _ = writeln!(
                text,
                "  look {at} at {:.3?}: {} rows, states {places:?}, in step: {}, checkpoint {} {:?}",
                sample.at,
                sample.content.lines.len(),
                sample.in_step,
                lsn(sample.lsn),
                self.bounds(sample),
            );
        }
        text
    }
}

/// The usual text of a position.
pub fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// Reads a position.
pub fn parse_lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

fn distance(a: &Content, b: &Content) -> usize {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (a.lines.iter().collect(), b.lines.iter().collect());
    a.symmetric_difference(&b).count()
}

/// What only one of the two has.
pub fn difference(seen: &Content, state: &Content) -> String {
    let (seen, state): (BTreeSet<_>, BTreeSet<_>) =
        (seen.lines.iter().collect(), state.lines.iter().collect());
    let mut text = String::new();
    for (what, lines) in [
        (
            "only seen:        ",
            seen.difference(&state).collect::<Vec<_>>(),
        ),
        ("only in the state:", state.difference(&seen).collect()),
    ] {
        for line in lines.iter().take(SHOWN) {
            let _ = writeln!(text, "  {what} {line}");
        }
        if lines.len() > SHOWN {
            let _ = writeln!(text, "  {what} and {} more", lines.len() - SHOWN);
        }
    }
    if text.is_empty() {
        text.push_str("  the same\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of these states of the first read model; `~` is one that cannot be followed, a
    /// leading `!` stands for DDL that the stream says nothing of, a leading `?` for one after
    /// which rows of several states may be seen.
    fn history(states: &[&str]) -> History {
        let commits = states.iter().enumerate().map(|(number, text)| {
            let position = u64::try_from(number).unwrap() * 10;
            let rows = text.trim_start_matches(['!', '?']);
            let state = (rows != "~").then(|| content(rows));
            Commit {
                before: position,
                after: position + 5,
                states: [state, None, None],
                unstreamed: [text.starts_with('!'), false, false],
                blurred: [text.starts_with('?'), false, false],
            }
        });
        History {
            commits: commits.collect(),
        }
    }

    fn content(rows: &str) -> Arc<Content> {
        Content::new(rows.split_whitespace().map(str::to_owned).collect())
    }

    /// Looks, each with the checkpoint; a suspended read model has none.
    fn check(states: &[&str], looks: &[(&str, Option<u64>)]) -> Result<(), String> {
        let looks: Vec<Sample> = looks
            .iter()
            .map(|(rows, lsn)| Sample {
                at: Duration::ZERO,
                content: content(rows),
                in_step: lsn.is_some(),
                lsn: lsn.unwrap_or(1_000),
            })
            .collect();
        history(states).check(0, &looks)
    }

    fn refused(states: &[&str], looks: &[(&str, Option<u64>)], why: &str) {
        let told = check(states, looks).unwrap_err();
        assert!(told.contains(why), "{told}");
    }

    #[test]
    fn a_read_model_in_step_shows_what_its_checkpoint_says() {
        let states = ["a", "a b", "b", "c"];
        check(
            &states,
            &[("a", Some(5)), ("a b", Some(15)), ("c", Some(35))],
        )
        .unwrap();
        // Between the two positions of a commit it may be there or not.
        check(&states, &[("a", Some(12)), ("a b", Some(13))]).unwrap();
        refused(
            &states,
            &[("a b", Some(25))],
            "the checkpoint says between 2 and 2",
        );
        refused(
            &states,
            &[("a b", Some(9))],
            "the checkpoint says between 0 and 0",
        );
        refused(&states, &[("a c", Some(35))], "after no commit");
        refused(&states, &[("b", None), ("a b", None)], "goes back");
        // One that is suspended shows an older state for as long as it takes.
        check(&states, &[("a b", None), ("c", Some(35))]).unwrap();
    }

    #[test]
    fn ddl_that_the_stream_does_not_tell_is_followed_by_one_step() {
        let states = ["a", "!A", "A B"];
        check(&states, &[("a", Some(25)), ("A B", Some(25))]).unwrap();
        refused(&states, &[("a B", Some(25))], "after no commit");
        let away = ["a", "!~", "~", "!b"];
        check(&away, &[("a", Some(35)), ("b", Some(35))]).unwrap();
        refused(&["a", "~", "b"], &[("a", Some(25))], "in step");
    }

    #[test]
    fn rows_of_several_states_are_seen_together_only_after_what_is_never_streamed() {
        let states = ["a b", "?b c", "b c d"];
        check(&states, &[("a b c d", Some(25)), ("b c d", Some(25))]).unwrap();
        refused(
            &states,
            &[("a c d", Some(25))],
            "every state since 0 had the row b",
        );
        refused(
            &states,
            &[("a b e", Some(25))],
            "no state since 0 had the row e",
        );
        refused(&["a b", "b c"], &[("a b c", Some(15))], "after no commit");
    }
}
