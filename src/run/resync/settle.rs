//! The copies and the lookups at one position: compared, and merged where they differ.
//!
//! ```text
//! stream   ... paused at P --> on ............... paused at Q --> merge --> on
//! shadow   near --> at P --> compared at leisure --> near --> at Q
//! ```
//!
//! The shadow is brought to P while the stream is paused there, and one snapshot of the target is
//! taken. Then the stream goes on: lookups and maps are compared within the snapshot, however long
//! that takes. Usually they are right, and nothing is left to do. A read model that is not right,
//! or that takes no part in the stream yet, is merged as a whole at a second pause, in one
//! transaction with the checkpoint. A dry run ends with the comparison.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::Client;

use super::{Copying, Outcome};
use crate::batch::{Merged, Written};
use crate::consume::mode::Joining;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::run::budget::within;
use crate::run::catch_up::{CatchUp, NEAR_BYTES, altered, stream_gone};
use crate::run::copy::ToCopy;
use crate::run::messages::Command;
use crate::source;
use crate::source::shapes::Shapes;
use crate::sql::TableName;
use crate::target::bookkeeping::{Equal, ModelState};
use crate::target::shadow::ShadowWriter;

/// How long the running stream may pause until the shadow has reached its position.
const PAUSE_PATIENCE: Duration = Duration::from_secs(30);

/// Copies that are read, on their way to the stream's position.
pub(super) struct Copies<'a> {
    /// Asks the source.
    pub(super) client: &'a Client,
    /// Name of the copies' slot.
    pub(super) slot: &'a str,
    pub(super) catch_up: CatchUp,
    pub(super) shadow: &'a mut ShadowWriter,
    pub(super) ready: &'a [ToCopy],
}

/// The stream is paused for as long as this is there.
struct Pause {
    position: Lsn,
    /// Closed if the stream went on by itself; dropped to let it go on.
    resume: oneshot::Sender<()>,
}

impl Copying<'_> {
    /// A dry run: what differs is found.
    pub(super) async fn compare_only(&mut self, copies: &mut Copies<'_>) -> Result<Outcome> {
        let position = self.begin_comparing(copies).await?;
        let mut found = Vec::new();
        for to_copy in copies.ready {
            let compared = copies.shadow.compare(&to_copy.model, self.order.keys);
            let compared = copies.catch_up.while_working(compared);
            let difference = within(self.shared, copies.slot, compared).await?;
            found.push((to_copy.settings.name(), difference));
        }
        copies.shadow.end_comparing().await?;
        Ok(self.outcome(position, Vec::new(), found))
    }

    /// The lookups and maps become what the copies hold.
    pub(super) async fn settle(&mut self, copies: &mut Copies<'_>) -> Result<Outcome> {
        let (taking_part, mut to_merge) = self.taking_part(copies).await?;
        let mut written = Vec::new();
        let mut position = Lsn::ZERO;
        if !taking_part.is_empty() {
            let (at, right, wrong) = self.compare(copies, taking_part).await?;
            position = at;
            to_merge.extend(wrong);
            let right = self.note_equal(copies, right, &mut to_merge).await?;
            if to_merge.is_empty() {
                self.note_done(copies, at).await?;
            }
            written.extend(right.into_iter().map(|(name, equal)| (name, equal.into())));
        }
        if !to_merge.is_empty() {
            let pause = self.pause(copies, &to_merge).await?;
            position = pause.position;
            tracing::debug!(lsn = %position, "merging the copies");
            let merged = self.merge(&to_merge).await?;
            tracing::debug!(lsn = %position, "merged the copies");
            drop(pause);
            written.extend(self.written(&to_merge, merged));
        }
        Ok(self.outcome(position, written, Vec::new()))
    }

    /// Notes the read models that are right, and returns them. One that was suspended meanwhile is
    /// to be merged.
    async fn note_equal(
        &self,
        copies: &mut Copies<'_>,
        right: Vec<(ToCopy, Equal)>,
        to_merge: &mut Vec<ToCopy>,
    ) -> Result<Vec<(String, Equal)>> {
        let equal: Vec<Equal> = right.iter().map(|(_, equal)| *equal).collect();
        let (bookkeeping, epoch) = (&self.shared.bookkeeping, self.order.epoch);
        let connection = copies.shadow.connection();
        let noted = bookkeeping.note_equal(connection, epoch, &equal).await?;
        let mut stay = Vec::with_capacity(right.len());
        for (to_copy, equal) in right {
            if noted.contains(&equal.id) {
                stay.push((to_copy.settings.name(), equal));
            } else {
                to_merge.push(to_copy);
            }
        }
        Ok(stay)
    }

    /// The resync is done without a merge: it must not be repeated.
    async fn note_done(&self, copies: &mut Copies<'_>, position: Lsn) -> Result<()> {
        let Some(request) = self.order.request else {
            return Ok(());
        };
        let connection = copies.shadow.connection();
        let bookkeeping = &self.shared.bookkeeping;
        bookkeeping
            .mark_merged(connection, self.order.epoch, request, position)
            .await
    }

    /// The copies of read models that take part in the stream, and those of the others.
    async fn taking_part(&self, copies: &mut Copies<'_>) -> Result<(Vec<ToCopy>, Vec<ToCopy>)> {
        let connection = copies.shadow.connection();
        let stored = self.shared.bookkeeping.models(connection).await?;
        let is_in_step = |to_copy: &ToCopy| {
            let mut stored = stored.iter();
            stored.any(|stored| stored.id == to_copy.model.id && stored.state == ModelState::InStep)
        };
        Ok(copies.ready.iter().cloned().partition(is_in_step))
    }

    /// Compares at one position; returns it, the copies of the read models that are
    /// right, and of those that are not.
    async fn compare(
        &mut self,
        copies: &mut Copies<'_>,
        taking_part: Vec<ToCopy>,
    ) -> Result<(Lsn, Vec<(ToCopy, Equal)>, Vec<ToCopy>)> {
        let position = self.begin_comparing(copies).await?;
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for to_copy in taking_part {
            let compared = copies.shadow.is_equal(&to_copy.model);
            let compared = copies.catch_up.while_working(compared);
            match within(self.shared, copies.slot, compared).await? {
                Some(equal) => right.push((to_copy, equal)),
                None => wrong.push(to_copy),
            }
        }
        copies.shadow.end_comparing().await?;
        tracing::debug!(lsn = %position, right = right.len(), wrong = wrong.len(), "compared the copies");
        Ok((position, right, wrong))
    }

    /// From here on the shadow's session sees the target as of the position that is returned.
    async fn begin_comparing(&mut self, copies: &mut Copies<'_>) -> Result<Lsn> {
        let pause = self.pause(copies, &[]).await?;
        copies.shadow.begin_comparing().await?;
        if pause.resume.is_closed() {
            // The target's snapshot may be later than the copy.
            return Err(Error::transient(
                "the stream went on before it could be compared",
            ));
        }
        // The snapshot keeps what is compared unchanged: the stream goes on.
        Ok(pause.position)
    }

    /// The stream pauses, and the copies are brought to its position; these read models take part
    /// from there on, once they are merged.
    async fn pause(&mut self, copies: &mut Copies<'_>, joining: &[ToCopy]) -> Result<Pause> {
        self.come_near(copies).await?;
        let (resume, resumed) = oneshot::channel();
        let models = joining.iter().map(ToCopy::joining).collect();
        let catch_up = &mut copies.catch_up;
        let position = self.stand_still(catch_up, models, resumed).await?;
        tracing::debug!(lsn = %position, "the stream is paused: the copies are brought to its position");
        let shadows = (&mut *copies.shadow, copies.ready);
        tokio::time::timeout(PAUSE_PATIENCE, catch_up.until(position, shadows))
            .await
            .map_err(|_| {
                Error::transient("the copy did not come to the stream's position in time")
            })??;
        self.prove(copies).await?;
        Ok(Pause { position, resume })
    }

    /// The copies come near to the end of the source's WAL.
    ///
    /// The end moves on meanwhile: near means near to where it is then. At a source that writes
    /// faster than that in each round, twice as much is near in the next one.
    async fn come_near(&self, copies: &mut Copies<'_>) -> Result<()> {
        let mut near_bytes = NEAR_BYTES;
        loop {
            let end = source::facts::current_wal(copies.client).await?;
            if end.bytes_since(copies.catch_up.received()) <= near_bytes {
                return Ok(());
            }
            near_bytes = near_bytes.saturating_mul(2);
            let shadows = (&mut *copies.shadow, copies.ready);
            let near = copies.catch_up.until_near(end, shadows);
            within(self.shared, copies.slot, near).await?;
        }
    }

    /// Asks the stream to pause, and waits for its position.
    async fn stand_still(
        &self,
        catch_up: &mut CatchUp,
        models: Joining,
        resume: oneshot::Receiver<()>,
    ) -> Result<Lsn> {
        // At or after what the shadow already holds: it must not have a commit that the lookups
        // lack.
        let at_least = catch_up.received();
        let (reply, position) = oneshot::channel();
        let pause = Command::Pause {
            models,
            at_least,
            reply,
            resume,
        };
        tracing::debug!(%at_least, "the stream is asked to pause");
        self.commands.send(pause).await.map_err(|_| stream_gone())?;
        let position = async { position.await.map_err(|_| stream_gone()) };
        catch_up.while_working(position).await
    }

    /// The stream's own session merges the copies.
    async fn merge(&self, ready: &[ToCopy]) -> Result<Vec<Merged>> {
        let models = ready
            .iter()
            .map(|to_copy| (to_copy.index, to_copy.model.clone()));
        let (reply, merged) = oneshot::channel();
        let merge = Command::Merge {
            models: models.collect(),
            request: self.order.request,
            reply,
        };
        self.commands.send(merge).await.map_err(|_| stream_gone())?;
        merged.await.map_err(|_| stream_gone())?
    }

    /// What was written, by name; read models that could not be written are among the failed.
    fn written(&mut self, ready: &[ToCopy], merged: Vec<Merged>) -> Vec<(String, Written)> {
        let mut written = Vec::new();
        for Merged { index, result } in merged {
            let Some(to_copy) = ready.iter().find(|to_copy| to_copy.index == index) else {
                continue;
            };
            let name = to_copy.settings.name();
            match result {
                Ok(rows) => written.push((name, rows)),
                Err(error) => self.failed.push(to_copy.failed(error)),
            }
        }
        written
    }

    /// The tables are still those that were bound, and the copy's own stream has described no other
    /// columns since.
    async fn prove(&self, copies: &mut Copies<'_>) -> Result<()> {
        let (client, ready) = (copies.client, copies.ready);
        let tables: Vec<TableName> = ready
            .iter()
            .map(|to_copy| to_copy.settings.source.clone())
            .collect();
        let publication = &self.shared.settings.source.publication;
        let now = Shapes::prepare(client)
            .await?
            .read(client, publication, &tables)
            .await?;
        for (to_copy, shape) in ready.iter().zip(&now) {
            shape.is_bound_to(&to_copy.model.model).map_err(altered)?;
        }
        let shapes: Vec<_> = tables.into_iter().zip(now).collect();
        copies.catch_up.prove(&shapes)
    }
}
