//! What a group does in one round, transaction by transaction, all of it drawn from the seed before
//! the round begins.

use std::time::Duration;

use fastrand::Rng;

use super::changes::{item_change, new_item, new_part, refill, refill_parts, some_changes};
use super::kinds::Kind;
use super::script::{Piece, Place, Script};
use super::tables::{MODELS, Shape, Which};

/// One step of a group's writer.
#[derive(Debug, Clone)]
pub enum Step {
    /// A transaction of the source.
    Transaction {
        sql: Vec<String>,
        /// How long it stays open before its commit.
        open: Duration,
        meaning: Meaning,
    },
    /// A statement of the source that cannot be in one.
    Bare(String),
    /// A statement of the target.
    Target(String),
    /// Wait until `cdc` has come to rest.
    Rest,
    Pause(Duration),
}

/// What a transaction means for the read models.
#[derive(Debug, Clone)]
pub struct Meaning {
    pub readable: Which,
    pub unstreamed: Which,
    pub blurred: Which,
}

impl Meaning {
    /// Only changes of rows, of tables like these.
    fn changes(shape: &Shape) -> Self {
        Self {
            readable: shape.readable(),
            unstreamed: [false; MODELS.len()],
            blurred: [false; MODELS.len()],
        }
    }
}

/// Everything that a group does in a round; without kinds its tables are left as they are. The
/// number makes new names.
pub fn plan(rng: Rng, schema: &str, rows: u32, kinds: &[Kind], number: u64) -> Vec<Step> {
    let canonical = Shape::canonical(schema);
    let mut script = Script::new(rng, canonical.clone());
    let mut kinds = kinds.to_vec();
    kinds.sort_by_key(|kind| kind.blurs);
    for (at, kind) in kinds.iter().enumerate() {
        script.number = format!("{number}_{at}");
        (kind.write)(&mut script);
        assert_eq!(
            script.shape, canonical,
            "{kind:?} does not leave the tables as they were"
        );
    }
    let Script {
        mut rng, pieces, ..
    } = script;
    let mut steps = Vec::new();
    let filled = vec![
        refill(&mut rng, &canonical, rows),
        refill_parts(&mut rng, &canonical),
    ];
    steps.push(transaction(&mut rng, filled, Meaning::changes(&canonical)));
    changes(&mut rng, &canonical, &mut steps);
    let mut shape = canonical;
    for piece in pieces {
        let after = piece.shape.clone();
        add(&mut rng, &shape, piece, &mut steps);
        shape = after;
        changes(&mut rng, &shape, &mut steps);
    }
    steps
}

/// The end of each round: everything comes to rest, a change of each table follows, and arrives.
pub fn end(mut rng: Rng, schema: &str) -> Vec<Step> {
    let shape = Shape::canonical(schema);
    let changes = vec![new_item(&mut rng, &shape), new_part(&mut rng, &shape)];
    let change = transaction(&mut rng, changes, Meaning::changes(&shape));
    vec![Step::Rest, change, Step::Rest]
}

/// Some transactions without DDL, and pauses.
fn changes(rng: &mut Rng, shape: &Shape, steps: &mut Vec<Step>) {
    for _ in 0..rng.u32(0..5) {
        let mut sql = some_changes(rng, shape);
        if rng.u32(0..4) == 0 {
            sql.push(item_change(rng, shape));
        }
        steps.push(transaction(rng, sql, Meaning::changes(shape)));
    }
    // Mostly at once, so that what comes next meets what `cdc` makes of it.
    let longest = match rng.u32(0..6) {
        0..=2 => 0,
        3..=4 => 300,
        _ => 2_000,
    };
    if longest > 0 {
        steps.push(Step::Pause(Duration::from_millis(rng.u64(0..longest))));
    }
}

fn transaction(rng: &mut Rng, sql: Vec<String>, meaning: Meaning) -> Step {
    // A copy's slot waits for every open transaction.
    let open = if rng.u32(0..8) == 0 {
        rng.u64(0..200)
    } else {
        0
    };
    Step::Transaction {
        sql,
        open: Duration::from_millis(open),
        meaning,
    }
}

/// A piece of DDL, often with changes in the same transaction.
fn add(rng: &mut Rng, before: &Shape, piece: Piece, steps: &mut Vec<Step>) {
    match piece.place {
        Place::Bare => steps.extend(piece.sql.into_iter().map(Step::Bare)),
        Place::Target => steps.extend(piece.sql.into_iter().map(Step::Target)),
        Place::Source => {
            let mut sql = Vec::new();
            let silent = piece.unstreamed.contains(&true) || piece.blurred.contains(&true);
            // The stream brings changes from before the DDL, and that there was DDL it tells with
            // the next change only: where none comes in the same transaction, readers see a part of
            // it.
            let witness = piece.witness.filter(|_| !piece.blurred.contains(&true));
            let changed_before = rng.u32(0..3) == 0 && (!silent || witness.is_some());
            if changed_before {
                sql.extend(some_changes(rng, before));
            }
            sql.extend(piece.sql);
            if rng.u32(0..3) == 0 {
                sql.extend(some_changes(rng, &piece.shape));
            }
            if let Some(shape) = witness.filter(|_| silent && changed_before) {
                sql.push(new_item(rng, &shape));
            }
            let meaning = Meaning {
                readable: piece.shape.readable(),
                unstreamed: piece.unstreamed,
                blurred: piece.blurred,
            };
            steps.push(transaction(rng, sql, meaning));
        }
    }
    if piece.rest {
        steps.push(Step::Rest);
    }
}

#[test]
fn each_kind_leaves_the_tables_as_they_were_and_is_drawn_from_the_seed() {
    for kind in super::kinds::KINDS {
        for seed in 0..200 {
            let plan = || format!("{:?}", plan(Rng::with_seed(seed), "g", 5, &[kind], seed));
            assert_eq!(plan(), plan());
        }
    }
}
