//! Random histories against a model of the source table: after every batch the lookup is what the
//! model shows.
//!
//! Transactions are random, batches are random numbers of transactions. Now and then the lookup is
//! damaged and an exact copy, brought forward by its own stream, is merged; or another process
//! takes over. In some runs the target rejects some rows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use cdc::batch::{MergePosition, Written};
use cdc::error::{Class, Result};
use cdc::fold::Fold;
use cdc::read_model::ModelIndex;
use cdc::target::difference::Difference;
use futures_util::stream;

use crate::cases::{BYSTANDERS, TABLES, assert_consistent, bystanders, labels, other};
use crate::key_index::forget_doubled_keys;
use crate::rig::{FIRST, Rig, SECOND};
use crate::support::{rows, value};

/// A source row.
#[derive(Debug, Clone, PartialEq)]
struct Master {
    code: Option<u8>,
    label: String,
    live: bool,
}

/// The source table by identity.
#[derive(Debug, Clone, Default)]
struct Source {
    rows: BTreeMap<i64, Master>,
    unique: bool,
    /// Whether some labels and codes are such that the target rejects them.
    refusing: bool,
    /// Whether rows are short: every value comes, and nothing is remembered of dead ones.
    short: bool,
    /// What stands under each code: of a code that only rejected rows claim, the last accepted
    /// state.
    standing: BTreeMap<u8, String>,
}

impl Master {
    /// The lookup's CHECK rejects it.
    fn is_bad(&self) -> bool {
        self.label.starts_with("bad")
    }

    /// The lookup's types refuse it.
    fn is_long(&self) -> bool {
        self.label.starts_with("long") || self.code.is_some_and(|code| code >= LONG_CODE)
    }

    fn is_rejected(&self) -> bool {
        self.live && self.code.is_some() && (self.is_bad() || self.is_long())
    }
}

/// Codes from here on are too long for the lookup.
const LONG_CODE: u8 = 8;

/// A lookup that rejects rows by a CHECK and by its types.
const REFUSING: &str = "
    CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label varchar(20) NOT NULL CHECK (label NOT LIKE 'bad%'),
        synced timestamptz NOT NULL DEFAULT now());
    CREATE TABLE other (code text PRIMARY KEY, label text);";

/// A row that is always there and never rejected: where every row is rejected the read model stops.
const GOOD: &str = "1000|GOOD|good|-";

impl Source {
    /// What the lookup shows: for each code the live row with the smallest identity.
    fn shown(&self) -> Vec<String> {
        let mut shown: Vec<String> = self
            .standing
            .iter()
            .map(|(code, label)| format!("{}|{label}", name(*code)))
            .collect();
        if self.refusing {
            shown.push("GOOD|good".to_owned());
        }
        shown
    }

    /// A batch up to the state that the source has now was applied.
    fn settle(&mut self) {
        let mut shown = BTreeMap::new();
        let live = || self.rows.values().filter(|row| row.live);
        for row in live().filter(|row| !row.is_rejected()) {
            if let Some(code) = row.code {
                shown.entry(code).or_insert_with(|| row.label.clone());
            }
        }
        for code in live().filter_map(|row| row.code) {
            if let Some(label) = self.standing.get(&code) {
                shown.entry(code).or_insert_with(|| label.clone());
            }
        }
        self.standing = shown;
    }

    /// The rows that are rejected (`identity|key|shown`), and whether each of them must be. One
    /// that waits for its key behind an accepted row need not have been tried.
    fn set_apart(&self) -> Vec<(String, bool)> {
        let rejected = self.rows.iter().filter(|(_, row)| row.is_rejected());
        rejected
            .map(|(id, row)| {
                let code = row.code.filter(|code| *code < LONG_CODE);
                let accepted = self
                    .rows
                    .iter()
                    .find(|(_, other)| other.live && !other.is_rejected() && other.code == code);
                let shown = match code {
                    Some(_) if accepted.is_some() => "other row",
                    Some(code) if self.standing.contains_key(&code) => "old row",
                    _ => "nothing",
                };
                let told = format!("{id}|{}|{shown}", code.map_or("-".to_owned(), name));
                (
                    told,
                    row.is_long() || accepted.is_none_or(|(other, _)| other > id),
                )
            })
            .collect()
    }

    fn code(&self, random: &mut fastrand::Rng) -> u8 {
        random.u8(..if self.refusing {
            LONG_CODE + 1
        } else {
            LONG_CODE
        })
    }

    /// A label that no row has had.
    fn label(&self, random: &mut fastrand::Rng, kind: &str, label: u32) -> String {
        match random.u8(..8) {
            0 | 1 if self.refusing => format!("bad {label}"),
            2 if self.refusing => format!("long {}{label}", "x".repeat(20)),
            _ => format!("{kind} {label}"),
        }
    }

    fn is_legal(&self) -> bool {
        let mut codes: Vec<_> = self
            .rows
            .values()
            .filter(|row| row.live)
            .filter_map(|row| row.code)
            .collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        !self.unique || codes.len() == count
    }

    /// One transaction of up to eight changes; `None` if the live codes were not unique at its end.
    fn transaction(&mut self, random: &mut fastrand::Rng, label: &mut u32) -> Option<Vec<String>> {
        let before = self.rows.clone();
        let mut changes = Vec::new();
        for _ in 0..random.usize(1..=8) {
            self.change(random, label, &mut changes);
        }
        if self.is_legal() {
            return Some(changes);
        }
        self.rows = before;
        None
    }

    fn change(&mut self, random: &mut fastrand::Rng, label: &mut u32, changes: &mut Vec<String>) {
        let ids: Vec<i64> = self.rows.keys().copied().collect();
        let known = (!ids.is_empty()).then(|| ids[random.usize(..ids.len())]);
        let unused = (0..20).find(|id| !self.rows.contains_key(id) && random.u8(..3) == 0);
        match (random.u8(..100), known, unused) {
            (0..=24, _, Some(id)) => {
                *label += 1;
                let row = Master {
                    code: (random.u8(..12) > 0).then(|| self.code(random)),
                    label: self.label(random, "new", *label),
                    live: random.u8(..5) > 0,
                };
                changes.push(format!("+{}", tuple(self.short, id, &row, None)));
                self.rows.insert(id, row);
            }
            (25..=64, Some(id), _) => {
                let mut row = self.rows[&id].clone();
                let before = row.clone();
                match random.u8(..8) {
                    0..=2 => row.live = !row.live,
                    3..=5 => row.code = (random.u8(..15) > 0).then(|| self.code(random)),
                    _ => {}
                }
                if random.u8(..4) == 0 {
                    *label += 1;
                    row.label = self.label(random, "changed", *label);
                }
                changes.push(format!(
                    "={}",
                    tuple(self.short, id, &row, random.bool().then_some(&before))
                ));
                self.rows.insert(id, row);
            }
            (65..=74, Some(id), Some(free)) => {
                let row = self.rows.remove(&id).unwrap();
                let before = row.clone();
                changes.push(format!(
                    "={id} > {}",
                    tuple(self.short, free, &row, random.bool().then_some(&before))
                ));
                self.rows.insert(free, row);
            }
            (75..=84, Some(one), _) => {
                // Two rows exchange their codes.
                let two = ids[random.usize(..ids.len())];
                let codes = (self.rows[&one].code, self.rows[&two].code);
                for (id, code) in [(one, codes.1), (two, codes.0)] {
                    let row = self.rows.get_mut(&id).unwrap();
                    let before = row.clone();
                    row.code = code;
                    changes.push(format!(
                        "={}",
                        tuple(self.short, id, row, random.bool().then_some(&before))
                    ));
                }
            }
            (85..=97, Some(id), _) => {
                self.rows.remove(&id);
                changes.push(format!("-{id}"));
            }
            (98, _, _) if random.u8(..4) == 0 => {
                self.rows.clear();
                changes.push("!".to_owned());
                if self.refusing {
                    changes.push(format!("+{GOOD}"));
                }
            }
            _ => {}
        }
    }
}

fn name(code: u8) -> String {
    if code < LONG_CODE {
        format!("C{code}")
    } else {
        format!("C{code}-far-too-long")
    }
}

/// The tuple; what equals `before` is left out, as if it were stored out of line, unless rows are
/// short.
fn tuple(short: bool, id: i64, row: &Master, before: Option<&Master>) -> String {
    // Nothing holds a value that a type rejected: it would break the read model.
    let before = before.filter(|before| !short && !before.is_long());
    let code = match row.code {
        None => "-".to_owned(),
        code if before.is_some_and(|before| before.code == code) => "u".to_owned(),
        Some(code) => name(code),
    };
    let label = match before {
        Some(before) if before.label == row.label => "u",
        _ => &row.label,
    };
    format!("{id}|{code}|{label}|{}", if row.live { "-" } else { "x" })
}

/// The rows as a copy reads them, in COPY's text format: live rows, and dead ones for their values.
fn copy(source: &Source) -> String {
    let mut text = String::new();
    for (id, row) in &source.rows {
        let state = if row.live && row.code.is_some() {
            "l"
        } else {
            "d"
        };
        if source.short && state == "d" {
            continue;
        }
        let code = row.code.map_or("\\N".to_owned(), name);
        writeln!(text, "{id}\t{state}\t{code}\t{}", row.label).unwrap();
    }
    if source.refusing {
        text += "1000\tl\tGOOD\tgood\n";
    }
    text
}

/// One run; `label` counts up so that every value is another one.
struct Run {
    rig: Rig,
    source: Source,
    random: fastrand::Rng,
    label: u32,
    seed: u64,
}

impl Run {
    async fn new(seed: u64, unique: bool, refusing: bool, short: bool) -> Self {
        let mut rig = Rig::new(if refusing { REFUSING } else { TABLES }).await;
        rig.add(&labels(!short)).await;
        rig.add(&other()).await;
        // As after a first copy: rows are counted from here on.
        rig.write(FIRST, &["!"]).await.unwrap();
        if refusing {
            rig.write(FIRST, &[format!("+{GOOD}")]).await.unwrap();
        }
        Self {
            rig,
            source: Source {
                unique,
                refusing,
                short,
                ..Source::default()
            },
            random: fastrand::Rng::with_seed(seed),
            label: 0,
            seed,
        }
    }

    /// Changes of one to five transactions.
    fn changes(&mut self) -> Vec<String> {
        let mut changes = Vec::new();
        for _ in 0..self.random.usize(1..=5) {
            changes.extend(
                self.source
                    .transaction(&mut self.random, &mut self.label)
                    .unwrap_or_default(),
            );
        }
        changes
    }

    async fn assert_consistent(&self, what: &str) {
        if !self.source.refusing {
            return assert_consistent(&self.rig, what).await;
        }
        let rejected = "SELECT identity, coalesce(key, '-'), shown FROM cdc.rejected";
        let rejected = rows(&self.rig.db, rejected).await;
        let set_apart = self.source.set_apart();
        for row in &rejected {
            assert!(
                set_apart.iter().any(|(told, _)| told == row),
                "{what}: {row}"
            );
        }
        for (row, _) in set_apart.iter().filter(|(_, must)| *must) {
            assert!(rejected.contains(row), "{what}: {row} is missing");
        }
        let count =
            "SELECT rows = (SELECT count(*) FROM lookup) FROM cdc.counted WHERE read_model = 1";
        assert_eq!(
            rows(&self.rig.db, count).await,
            ["t"],
            "{what}: counted rows"
        );
    }

    async fn assert_shown(&self, what: &str) {
        let shown = rows(
            &self.rig.db,
            "SELECT code, label FROM lookup WHERE code NOT LIKE '~%' ORDER BY code COLLATE \"C\"",
        )
        .await;
        assert_eq!(shown, self.source.shown(), "seed {}, {what}", self.seed);
    }

    async fn batch(&mut self, number: usize) {
        let changes = self.changes();
        let what = format!("batch {number}: {changes:?}");
        let mut folds = vec![(FIRST, self.rig.fold(FIRST, &changes))];
        if self.random.u8(..4) == 0 {
            // Two read models: by COPY.
            folds.insert(
                self.random.usize(..2),
                (SECOND, self.rig.fold(SECOND, &[format!("=x|{number}")])),
            );
        }
        let beside = self.random.u8(..16) == 0;
        let applied = if beside {
            self.beside(&changes).await
        } else if folds.len() == 1 && self.random.u8(..3) == 0 {
            self.in_chunks(&changes).await
        } else {
            self.rig.apply(folds).await
        };
        if let Err(error) = applied {
            panic!("seed {}, {what}: {error:?}", self.seed);
        }
        self.source.settle();
        self.assert_shown(&what).await;
        self.assert_consistent(&format!("seed {}, {what}", self.seed))
            .await;
        if beside {
            let gone: Vec<String> = BYSTANDERS.map(|id| format!("-{id}")).collect();
            self.rig.write(FIRST, &gone).await.unwrap();
        }
        let told = changes
            .iter()
            .any(|change| change.contains(" > ") || change.contains("|u|"));
        if !told && self.random.u8(..6) == 0 {
            // A batch that comes twice changes nothing.
            let written = self.rig.write(FIRST, &changes).await.unwrap();
            assert_eq!(written.changed(), 0, "seed {}, {what} again", self.seed);
            self.assert_shown(&format!("{what} again")).await;
        }
    }

    /// The changes beside many new rows, by a writer that has not put them off.
    async fn beside(&mut self, changes: &[String]) -> Result<Vec<(ModelIndex, Written)>> {
        self.rig.writer = self.rig.another_writer().await;
        let all = bystanders().chain(changes.iter().cloned());
        let fold = self.rig.fold(FIRST, &all.collect::<Vec<_>>());
        self.rig.apply(vec![(FIRST, fold)]).await
    }

    /// The changes as those of one large transaction, cut anywhere.
    async fn in_chunks(&mut self, changes: &[String]) -> Result<Vec<(ModelIndex, Written)>> {
        let mut chunks = Vec::new();
        let mut rest = changes;
        while self.random.u8(..4) > 0 {
            let (chunk, later) = rest.split_at(self.random.usize(..=rest.len().min(4)));
            chunks.push(chunk);
            rest = later;
        }
        chunks.push(rest);
        if self.random.u8(..8) == 0 {
            // The connection to the source was lost before its end.
            for chunk in &chunks {
                let fold = self.rig.fold(FIRST, chunk);
                self.rig.writer.stage_chunk(&[(FIRST, fold)]).await?;
            }
            self.rig.writer.abandon_chunks().await?;
        }
        self.rig.write_in_chunks(FIRST, &chunks).await
    }

    /// An exact copy beside the stream, merged where both stand.
    async fn resync(&mut self) {
        let model = self.rig.models[0].target.clone();
        let mut shadow = self.rig.shadow(FIRST).await;
        let text = copy(&self.source);
        let pieces = text
            .split_inclusive('\n')
            .map(|line| Ok(Bytes::from(line.to_owned())));
        let pieces: Vec<_> = pieces.collect();
        let copied = cdc::target::shadow::Counter::default();
        if let Err(error) = shadow.fill(&model, stream::iter(pieces), &copied).await {
            assert!(self.source.refusing, "seed {}: {error:?}", self.seed);
            shadow.take(&self.rig.bookkeeping, &model).await.unwrap();
            copied.reset();
            // Pieces of any size, of whole rows.
            let pieces = vec![Ok(Bytes::from(text.clone()))];
            shadow
                .fill_carefully(&model, stream::iter(pieces), &copied)
                .await
                .unwrap();
        } else {
            assert_eq!(
                copied.read().0,
                i64::try_from(text.matches('\n').count()).unwrap()
            );
        }
        for _ in 0..self.random.usize(..4) {
            let changes = self.changes();
            let fold = self.rig.fold(FIRST, &changes);
            self.rig.apply(vec![(FIRST, fold.clone())]).await.unwrap();
            self.source.settle();
            let folds: Vec<(_, Fold)> = vec![(&model, fold)];
            let done = shadow.catch_up(folds).await;
            assert!(done.is_ok(), "seed {}: {done:?} {changes:?}", self.seed);
        }
        self.assert_shown("before a resync").await;
        let mut found = shadow.compare(&model, 10).await.unwrap();
        let mut healthy = Difference {
            same: i64::try_from(self.source.shown().len()).unwrap(),
            ..Difference::default()
        };
        let count = async |rows: &str| -> i64 {
            let count = value(&self.rig.db, &format!("SELECT count(*) FROM {rows}")).await;
            count.parse().unwrap()
        };
        healthy.rejected = count("cdc.rejected").await;
        healthy.waiting = count("cdc.map_1 WHERE state = 'w'").await;
        assert_eq!(
            found.rejections.len(),
            usize::try_from(healthy.rejected.min(10)).unwrap()
        );
        (found.keys, found.rejections) = (Vec::new(), Vec::new());
        if self.source.refusing {
            (found.same, healthy.same) = (0, 0);
            // Rows that wait for the key of a rejected one are not compared.
            (found.waiting, healthy.waiting) = (0, 0);
        }
        assert_eq!(found, healthy, "seed {}: false alarm", self.seed);
        let damage = self.random.bool();
        if damage {
            let damage = "DELETE FROM lookup WHERE code IN ('C0', 'C1'); UPDATE lookup SET label = 'drift' WHERE code = 'C2';
                INSERT INTO lookup VALUES ('DRIFT', 'x'); DELETE FROM cdc.map_1 WHERE i1 % 3 = 0;
                UPDATE cdc.map_1 SET k1 = 'C7' WHERE i1 = 4;";
            self.rig.db.batch_execute(damage).await.unwrap();
            let standing = &mut self.source.standing;
            standing.retain(|code, _| *code > 1);
            standing
                .entry(2)
                .and_modify(|label| *label = "drift".to_owned());
        }
        let position = MergePosition::Running(self.rig.position().lsn, None);
        let merged = self
            .rig
            .writer
            .merge(&[FIRST], &position, 20)
            .await
            .unwrap();
        let written = merged.into_iter().next().unwrap().result;
        let written = written.unwrap();
        if !damage {
            assert_eq!(
                written.changed(),
                0,
                "seed {}: a resync in health writes nothing",
                self.seed
            );
        }
        self.source.settle();
        self.assert_shown("after a resync").await;
        self.assert_consistent(&format!("seed {}, after a resync", self.seed))
            .await;
        shadow.give_back(&self.rig.bookkeeping).await.unwrap();
    }

    /// Another process takes over; the old one writes nothing from then on.
    async fn take_over(&mut self) {
        let new = self.rig.another_writer().await;
        let error = self
            .rig
            .write(FIRST, &["+99|C0|zombie|-"])
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::Fenced);
        self.rig.writer = new;
    }
}

/// Seed from `CDC_TEST_SEED`, or a new one; it is told when an assertion fails.
fn seed() -> u64 {
    match std::env::var("CDC_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    }
}

async fn history(unique: bool, refusing: bool, short: bool) {
    let mut run = Run::new(seed(), unique, refusing, short).await;
    for number in 0..120 {
        match run.random.u8(..40) {
            0..=3 => run.resync().await,
            4 => run.take_over().await,
            5..=7 => forget_doubled_keys(&run.rig).await,
            _ => run.batch(number).await,
        }
    }
}

#[tokio::test]
async fn random_histories_with_unique_live_codes() {
    history(true, false, false).await;
}

#[tokio::test]
async fn random_histories_with_colliding_codes() {
    history(false, false, false).await;
}

#[tokio::test]
async fn random_histories_of_short_rows() {
    history(true, false, true).await;
}

#[tokio::test]
async fn random_histories_with_rows_that_the_target_refuses() {
    history(false, true, false).await;
}
