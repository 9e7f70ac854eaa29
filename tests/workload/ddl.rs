//! Random DDL beside changes, restarts, kills, copies and resyncs: whatever becomes of a source
//! table, its lookup shows one committed state after the other and comes to the newest one, or its
//! read model is suspended and says why.
//!
//! Every kind of DDL (`ddl/kinds.rs`) is drawn equally often, in rounds (`ddl/round.rs`); a history
//! of all committed states judges what readers saw (`ddl/history.rs`). `CDC_TEST_SEED` replays,
//! `CDC_TEST_ROUNDS` makes it longer, `CDC_TEST_ROUND` takes one round alone, `CDC_TEST_KINDS` (a
//! part of the name) draws only some kinds; `make campaign-ddl` runs 200 rounds.

#[path = "ddl/changes.rs"]
mod changes;
#[path = "ddl/faults.rs"]
mod faults;
#[path = "ddl/history.rs"]
mod history;
#[path = "ddl/kinds.rs"]
mod kinds;
#[path = "ddl/kinds_of_columns.rs"]
mod kinds_of_columns;
#[path = "ddl/kinds_of_partitions.rs"]
mod kinds_of_partitions;
#[path = "ddl/kinds_of_tables.rs"]
mod kinds_of_tables;
#[path = "ddl/plan.rs"]
mod plan;
#[path = "ddl/reader.rs"]
mod reader;
#[path = "ddl/rest.rs"]
mod rest;
#[path = "ddl/round.rs"]
mod round;
#[path = "ddl/script.rs"]
mod script;
#[path = "ddl/tables.rs"]
mod tables;
#[path = "ddl/timeline.rs"]
mod timeline;
#[path = "ddl/writer.rs"]
mod writer;

use fastrand::Rng;

use super::stage::{number, seed};
use kinds::{KINDS, Kind};
use round::{Campaign, GROUPS};

/// Groups that draw kinds in each round, and how many each draws.
const DRAWING: usize = GROUPS - 1;
const DRAWN: usize = 2;

/// Kinds in an order in which each comes once before any comes again.
struct Deck {
    rng: Rng,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    fn new(seed: u64) -> Self {
        let wanted = std::env::var("CDC_TEST_KINDS").unwrap_or_default();
        let is_wanted = |kind: &Kind| wanted.split(',').any(|part| kind.name.contains(part));
        Self {
            rng: Rng::with_seed(seed),
            kinds: KINDS.into_iter().filter(is_wanted).collect(),
            left: Vec::new(),
        }
    }

    fn draw(&mut self, number: usize) -> Vec<Kind> {
        let mut drawn = Vec::new();
        while drawn.len() < number {
            if self.left.is_empty() {
                self.left.clone_from(&self.kinds);
                self.rng.shuffle(&mut self.left);
            }
            drawn.extend(self.left.pop());
        }
        drawn
    }
}

/// Rounds until something is wrong.
async fn campaign(seed: u64) -> Result<(), String> {
    let mut deck = Deck::new(seed);
    let mut campaign = Campaign::set("ddl", seed).await;
    let alone = number("CDC_TEST_ROUND", u64::MAX);
    let short = u64::try_from(deck.kinds.len().div_ceil(DRAWING * DRAWN)).unwrap();
    let rounds = match alone {
        // The short run: enough for each kind to be drawn.
        u64::MAX => number("CDC_TEST_ROUNDS", short),
        round => round + 1,
    };
    for round in 0..rounds {
        let kinds: Vec<Vec<Kind>> = (0..DRAWING).map(|_| deck.draw(DRAWN)).collect();
        if alone == u64::MAX || alone == round {
            campaign.round(round, &kinds).await?;
        }
    }
    campaign.finish(rounds).await
}

#[tokio::test]
async fn lookups_follow_tables_that_are_altered_all_the_time() {
    let seed = seed();
    eprintln!("ddl: CDC_TEST_SEED={seed}");
    // Outside of the campaign, which would show the whole log of `cdc` otherwise.
    if let Err(why) = campaign(seed).await {
        panic!("{why}");
    }
}
