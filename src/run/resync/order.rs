//! What a resync is asked to do, and what came of it.

use crate::batch::Written;
use crate::lsn::Lsn;
use crate::read_model::{ModelId, ModelIndex};
use crate::run::copy::FailedCopy;
use crate::settings::ReadModelSettings;
use crate::target::difference::Difference;

/// A resync to be done.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Its read models.
    pub models: Vec<Ordered>,
    /// Epoch of the session.
    pub epoch: i64,
    /// Number of the resync in the bookkeeping, if it has one.
    pub number: Option<i64>,
    /// The same, where there is something to merge: it is done in the transaction of the merge.
    pub request: Option<i64>,
    /// Compare only.
    pub dry_run: bool,
    /// Keys of each kind of difference that a dry run names.
    pub keys: u32,
}

/// A read model of which a copy is ordered.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    /// Its place in the configuration.
    pub index: ModelIndex,
    /// Its number in the bookkeeping.
    pub id: ModelId,
    /// Its rule.
    pub settings: ReadModelSettings,
}

/// What it did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Position at which lookups and source were compared.
    pub lsn: Lsn,
    /// Rows written, by read model; empty for a dry run.
    pub written: Vec<(String, Written)>,
    /// Differences, by read model; only for a dry run.
    pub found: Vec<(String, Difference)>,
    /// Read models that could not be copied.
    pub failed: Vec<FailedCopy>,
}
