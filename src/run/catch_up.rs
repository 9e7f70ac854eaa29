//! The shadow catches up with the source: its slot's own stream, read on a second replication
//! connection.

use std::time::{Duration, Instant};

use crate::consume::acks::Asks;
use crate::consume::follower::Follower;
use crate::consume::mode::Joining;
use crate::error::{Class, Error, Result};
use crate::lsn::Lsn;
use crate::run::copy::ToCopy;
use crate::shape::Shape;
use crate::source::replication::Replication;
use crate::sql::TableName;
use crate::target::shadow::ShadowWriter;

/// The shadow is near once it is this close to the end of the source's WAL: the pause lasts only as
/// long as the rest takes.
pub(crate) const NEAR_BYTES: u64 = 1 << 20;

/// How often the connection gets feedback at least.
const FEEDBACK: Duration = Duration::from_secs(5);

/// The shadow's session, and the read models that it holds.
type Shadows<'a> = (&'a mut ShadowWriter, &'a [ToCopy]);

/// A copy on its way to the stream's position.
pub(crate) struct CatchUp {
    replication: Replication,
    consistent_point: Lsn,
    follower: Follower,
    fed_back: Instant,
    /// How often a status is sent, whatever else happens.
    feedback: Duration,
}

impl CatchUp {
    /// A connection that streams from the slot's consistent point.
    pub(crate) fn new(
        replication: Replication,
        consistent_point: Lsn,
        ready: &[ToCopy],
        feedback: Duration,
    ) -> Self {
        let models = ready.iter().map(ToCopy::joining);
        let models: Joining = models.collect();
        Self {
            replication,
            consistent_point,
            follower: Follower::new(consistent_point, &models),
            fed_back: Instant::now(),
            feedback: if feedback.is_zero() {
                FEEDBACK
            } else {
                feedback.min(FEEDBACK)
            },
        }
    }

    /// Every commit before this was received.
    pub(crate) fn received(&self) -> Lsn {
        self.follower.received()
    }

    /// Until the shadow is close to `end`.
    pub(crate) async fn until_near(&mut self, end: Lsn, shadows: Shadows<'_>) -> Result<()> {
        self.follower.go_on_to(None)?;
        self.follow(shadows, |follower| follower.is_near(end, NEAR_BYTES))
            .await
    }

    /// Brings the shadow to `position`: every commit before it, none at or after it.
    pub(crate) async fn until(&mut self, position: Lsn, shadows: Shadows<'_>) -> Result<()> {
        self.follower.go_on_to(Some(position))?;
        self.follow(shadows, Follower::is_at_end).await
    }

    async fn follow(
        &mut self,
        (shadow, ready): Shadows<'_>,
        is_there: impl Fn(&Follower) -> bool,
    ) -> Result<()> {
        // An idle stream passes the position with the keepalive that is asked for here.
        self.say(Asks::Keepalive).await?;
        while !is_there(&self.follower) {
            if self.drain(&is_there)? == 0 {
                self.fill().await?;
            }
            if self.fed_back.elapsed() >= self.feedback {
                self.say(Asks::Keepalive).await?;
            }
            if self.follower.is_full() {
                self.write((&mut *shadow, ready)).await?;
            }
        }
        self.write((shadow, ready)).await
    }

    /// Takes in the buffered frames, as far as it may; returns the number of frames.
    fn drain(&mut self, is_there: impl Fn(&Follower) -> bool) -> Result<usize> {
        let mut frames = 0;
        while !self.follower.is_full() && !is_there(&self.follower) {
            let Some(frame) = self.replication.next_frame()? else {
                break;
            };
            self.follower.take(&frame)?;
            frames += 1;
        }
        Ok(frames)
    }

    async fn fill(&mut self) -> Result<()> {
        match tokio::time::timeout(self.feedback, self.replication.fill()).await {
            Ok(read) => read,
            // Nothing came: ask for the stream's position.
            Err(_) => self.say(Asks::Keepalive).await,
        }
    }

    async fn say(&mut self, asks: Asks) -> Result<()> {
        self.fed_back = Instant::now();
        let (received, kept) = (self.follower.received(), self.consistent_point);
        self.replication
            .send_status(received, kept, kept, asks == Asks::Keepalive)
            .await
    }

    /// Keeps the connection alive until this is done.
    pub(crate) async fn while_working<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = tokio::time::sleep(self.feedback) => self.say(Asks::Nothing).await?,
            }
        }
    }

    /// Writes what was taken in into the shadows.
    async fn write(&mut self, (shadow, ready): Shadows<'_>) -> Result<()> {
        let folds = self.follower.take_folds().map_err(altered)?;
        let folds: Vec<_> = folds
            .into_iter()
            .filter_map(|(index, fold)| {
                let to_copy = ready.iter().find(|to_copy| to_copy.index == index)?;
                Some((&to_copy.model, fold))
            })
            .collect();
        if folds.is_empty() {
            return Ok(());
        }
        self.while_working(shadow.catch_up(folds)).await
    }

    /// The copy's own stream has described no other columns than those that were bound.
    pub(crate) fn prove(&mut self, shapes: &[(TableName, Shape)]) -> Result<()> {
        self.follower.prove(shapes).map_err(altered)
    }
}

/// The next copy reads the table as it is then.
pub(crate) fn altered(error: Error) -> Error {
    error
        .with_class(Class::Transient)
        .context("the table was altered during the copy")
}

/// The stream whose position was asked for has ended.
pub(crate) fn stream_gone() -> Error {
    Error::transient("the stream ended during the resync")
}
