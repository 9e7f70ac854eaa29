//! Shadows: the source's rows by identity, as a copy read them, brought forward by the copy's own
//! stream.
//!
//! A shadow knows nothing of keys or of what is shown: it is a plain image of the source's live
//! rows (and of the dead ones whose values must be kept). The writer merges it like one large
//! batch. It is UNLOGGED: a crash of the target empties it, and the copy starts again. Whose it is,
//! and when it is emptied: `bookkeeping/shadows.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};

use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::fold::Fold;
use crate::read_model::ModelId;
use crate::target::bookkeeping::{Bookkeeping, Equal};
use crate::target::copy_buffer::{Gathered, begin_copy};
use crate::target::difference::{Difference, compare};
use crate::target::error::from_driver;
use crate::target::model::TargetModel;
use crate::target::statement::{Transaction, execute};
use crate::target::write::halving::{self, RejectedCounts, Rows};

/// Bytes after which a copy's transaction is committed and the next one begins, so that none stays
/// open long.
const COPY_TRANSACTION_BYTES: usize = 64 << 20;

/// Bytes of rows that are kept until the target has taken them, where it may reject some.
const CAREFUL_BYTES: usize = 1 << 20;

/// For how long a comparison waits for a table that somebody has locked: meanwhile whoever waits
/// for the tables that it has read waits for it.
const MOST_LOCK_WAIT_MILLIS: u32 = 30_000;

/// How a shadow is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    /// In one go: a row that the lookup's types reject ends it.
    AtOnce,
    /// In small pieces: rows that they reject are found.
    Carefully,
}

/// A session that fills shadows, brings them forward and compares them.
#[derive(Debug)]
pub struct ShadowWriter {
    conn: Connection,
    /// Names what it fills.
    copy: String,
    /// Read models with the shadows that it has, by number.
    taken: HashMap<ModelId, TargetModel>,
    prepared: HashSet<ModelId>,
}

/// Rows and bytes that a copy has read so far, for the progress that it reports.
#[derive(Debug, Default)]
pub struct Counter {
    rows: AtomicI64,
    bytes: AtomicI64,
}

impl Counter {
    /// Rows, and their bytes as COPY's text.
    pub fn read(&self) -> (i64, i64) {
        (
            self.rows.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Begins again at zero.
    pub fn reset(&self) {
        self.rows.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(i64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }
}

impl ShadowWriter {
    /// Takes a session of its own.
    pub fn new(conn: Connection) -> Self {
        Self {
            conn,
            copy: random_uuid(),
            taken: HashMap::new(),
            prepared: HashSet::new(),
        }
    }

    /// The session, for the bookkeeping.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// Takes an empty shadow, or empties the one that it has; returns the read model with it.
    ///
    /// Its commits do not wait for the disk, as no shadow outlives a crash; the merge's commit, in
    /// another session, flushes all that was written before it.
    pub async fn take(
        &mut self,
        bookkeeping: &Bookkeeping,
        model: &TargetModel,
    ) -> Result<TargetModel> {
        if let Some(taken) = self.taken.get(&model.id) {
            bookkeeping.empty_again(&mut self.conn, taken).await?;
            return Ok(taken.clone());
        }
        let taken = bookkeeping
            .take_shadow(&mut self.conn, model, &self.copy)
            .await?;
        // The tables that it compares are read once and hashed, whatever size the server expects.
        let sql = format!(
            "SET synchronous_commit = off; SET enable_nestloop = off; {}",
            // The comparison reads it.
            taken.create_rejected()
        );
        execute(&mut self.conn, sql).await?;
        self.taken.insert(taken.id, taken.clone());
        Ok(taken)
    }

    /// Fills the shadow in this way.
    ///
    /// # Errors
    /// As [`Self::fill`] or [`Self::fill_carefully`].
    pub(crate) async fn fill_by(
        &mut self,
        filling: Filling,
        model: &TargetModel,
        rows: impl Stream<Item = Result<Bytes>>,
        copied: &Counter,
    ) -> Result<()> {
        match filling {
            Filling::AtOnce => self.fill(model, rows, copied).await,
            Filling::Carefully => self.fill_carefully(model, rows, copied).await,
        }
    }

    /// Fills the shadow with rows in COPY's text format, one row a piece, and counts them.
    ///
    /// # Errors
    /// [`Class::Rejected`](crate::error::Class::Rejected) if the lookup's types reject a value.
    pub async fn fill(
        &mut self,
        model: &TargetModel,
        rows: impl Stream<Item = Result<Bytes>>,
        copied: &Counter,
    ) -> Result<()> {
        let sql = format!(
            "COPY {} ({}) FROM STDIN",
            model.shadow(),
            model.copy_columns()
        );
        let mut rows = std::pin::pin!(rows);
        let mut ended = false;
        while !ended {
            let mut copy = begin_copy(&self.conn, &sql).await.map_err(from_driver)?;
            let mut gathered = Gathered::default();
            let mut sent = 0;
            while sent < COPY_TRANSACTION_BYTES {
                let piece = match rows.try_next().await {
                    Ok(piece) => piece,
                    // The server is not to take the rows so far for all: a COPY that is dropped
                    // fails.
                    Err(error) => return Err(error),
                };
                let Some(piece) = piece else {
                    ended = true;
                    break;
                };
                sent += piece.len();
                copied.add(piece.len());
                gathered.add(&mut copy, &piece).await.map_err(from_driver)?;
            }
            gathered.send(&mut copy).await.map_err(from_driver)?;
            copy.as_mut().finish().await.map_err(from_driver)?;
        }
        execute(&mut self.conn, model.analyze_shadow()).await
    }

    /// The same in small pieces, after a row was rejected: rows that the lookup's types reject are
    /// found and recorded by their identity.
    ///
    /// # Errors
    /// [`Class::Rejected`](crate::error::Class::Rejected) if there are too many such rows.
    pub async fn fill_carefully(
        &mut self,
        model: &TargetModel,
        rows: impl Stream<Item = Result<Bytes>>,
        copied: &Counter,
    ) -> Result<()> {
        let mut rows = std::pin::pin!(rows);
        let mut rejected = RejectedCounts::default();
        let mut ended = false;
        while !ended {
            let mut pieces = Vec::new();
            let mut bytes = 0;
            while bytes < CAREFUL_BYTES {
                let Some(piece) = rows.try_next().await? else {
                    ended = true;
                    break;
                };
                bytes += piece.len();
                copied.add(piece.len());
                pieces.push(piece);
            }
            let lines: Vec<&[u8]> = pieces
                .iter()
                .flat_map(|piece| piece.split_inclusive(|byte| *byte == b'\n'))
                .collect();
            let mut tx = Transaction::begin(&mut self.conn).await?;
            let taken = halving::copy(tx.conn(), model, Rows::Lines(&lines), &mut rejected).await;
            tx.end(taken).await?;
        }
        execute(&mut self.conn, model.analyze_shadow()).await
    }

    /// Brings the shadows forward by whole transactions.
    pub async fn catch_up(&mut self, folds: Vec<(&TargetModel, Fold)>) -> Result<()> {
        for (model, _) in &folds {
            if self.prepared.insert(model.id) {
                execute(&mut self.conn, model.index_shadow()).await?;
                execute(&mut self.conn, model.create_stage()).await?;
                execute(&mut self.conn, model.catch_up_function()).await?;
            }
        }
        let mut tx = Transaction::begin(&mut self.conn).await?;
        let result = async {
            for (model, fold) in folds {
                let (clear, resolve) = (fold.clear(), fold.has_unchanged());
                halving::stage_accepted(
                    tx.conn(),
                    model,
                    &model.stage(),
                    &fold,
                    &mut RejectedCounts::default(),
                )
                .await?;
                query(model.catch_up_call())
                    .bind(clear)
                    .bind(resolve)
                    .execute(tx.conn())
                    .await
                    .map_err(from_driver)?;
            }
            Ok(())
        }
        .await;
        tx.end(result).await
    }

    /// From here on the session sees every table as it is now.
    pub(crate) async fn begin_comparing(&mut self) -> Result<()> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = {MOST_LOCK_WAIT_MILLIS}; SELECT 1"
        );
        execute(&mut self.conn, begin).await
    }

    /// It sees what is new again.
    pub(crate) async fn end_comparing(&mut self) -> Result<()> {
        execute(&mut self.conn, "COMMIT".to_owned()).await
    }

    /// Compares the shadow with the lookup, without writing to either; keys of at most `limit` rows
    /// of each kind.
    pub async fn compare(&mut self, model: &TargetModel, limit: u32) -> Result<Difference> {
        compare(&mut self.conn, model.compare(limit)).await
    }

    /// Whether lookup and map are exactly as the shadow has them, without a rejected row; `None` if
    /// they are not, or if this cannot be found out. Nothing is written.
    ///
    /// # Errors
    /// Transient: the session is lost, or somebody wants it to end.
    pub(crate) async fn is_equal(&mut self, model: &TargetModel) -> Result<Option<Equal>> {
        execute(&mut self.conn, "SAVEPOINT read_model".to_owned()).await?;
        let row = match query(model.unequal()).row(&self.conn).await {
            Ok(row) => row,
            Err(error) => {
                let error = from_driver(error);
                let back = "ROLLBACK TO SAVEPOINT read_model";
                let lost = execute(&mut self.conn, back.to_owned()).await.is_err();
                if lost || error.sqlstate().is_none_or(|state| state.starts_with("57")) {
                    return Err(error);
                }
                // The merge does without what this lacks: a lock, room for temporary files, an
                // operator of the key's type. Or it says of this read model alone what is wrong.
                tracing::debug!(%error, "a lookup could not be compared");
                return Ok(None);
            }
        };
        let count = |at| row.try_get::<_, i64>(at).map_err(from_driver);
        Ok((count(0)? == 0).then_some(Equal {
            id: model.id,
            shown: count(1)?,
            waiting: count(2)?,
        }))
    }

    /// Gives all shadows back.
    pub async fn give_back(&mut self, bookkeeping: &Bookkeeping) -> Result<()> {
        for (_, model) in std::mem::take(&mut self.taken) {
            bookkeeping.give_shadow_back(&mut self.conn, &model).await?;
        }
        Ok(())
    }
}

/// Unlike any other.
fn random_uuid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}
