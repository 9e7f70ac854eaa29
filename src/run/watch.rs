//! The watch: every ten seconds one cheap query a side, for what the stream does not bring.
//!
//! What it finds is stored with each read model, so a difference is noticed across restarts too:
//!
//! | difference | what follows |
//! |---|---|
//! | the publication was created again | the old slot may never pass it: healing |
//! | its options or its entries for the table | changes may be missing: that read model is copied |
//! | the table or the lookup was created again or renamed, a column that is used or the replica identity changed, a table or leaf became UNLOGGED or a partition of another one, the lookup's columns changed | bound again, and copied if it has to be |
//! | another file (rewrite, TRUNCATE, ATTACH, DETACH) that is no TRUNCATE which the stream brought | one resync of that read model |
//! | changes of a leaf that no look has seen: attached, changed and detached | one resync of that read model |
//! | a label of an enum, the attributes of a composite type, the output of a type | one resync of that read model |
//! | bookkeeping or a map is missing at the target | created again and copied |
//! | lookup or map have another number of rows than was written | one resync of that read model |
//!
//! Between two looks it tells the stream when a session waits in `wait_for` for a position. It
//! judges another file once the stream has passed the position at which the file was seen.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use crate::connect::Connection;
use crate::consume::passed::Passed;
use crate::error::{Error, Result};
use crate::read_model::{ModelId, ModelIndex};
use crate::retry::Backoff;
use crate::run::bind::Bound;
use crate::run::messages::{Beside, Command};
use crate::run::pressure;
use crate::run::shared::Shared;
use crate::source;
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::{Counts, Pulse};

mod begin;
mod damage;
mod descriptions;
mod watched;

pub(crate) use begin::{compare_with_stored, look_before};
pub(crate) use descriptions::answer;
use watched::{Seen, Watched};

/// How often the watch looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How long it waits for the pulse, whose target may not answer.
const MOST_PAUSE: Duration = Duration::from_secs(2);

/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);

/// How long the target may not be seen before the session gives the batch in hand up.
const MOST_BLINDNESS: Duration = Duration::from_secs(90);

/// What a session's watch compares with.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    epoch: i64,
    watched: Vec<Watched>,
    passed: Arc<Passed>,
    /// Read models that were miscounted at the last look, and when a resync of them may be asked
    /// for again: a cause that comes back at once must not load the master.
    miscounted: HashMap<ModelId, (Backoff, Instant)>,
    commands: mpsc::Sender<Command>,
    pulse: watch::Receiver<Pulse>,
    seen_at: Instant,
}

/// The sources of the read models, in their order.
fn sources(shared: &Shared) -> Vec<TableName> {
    let read_models = shared.settings.read_models.iter();
    read_models.map(|model| model.source.clone()).collect()
}

/// Asks for a resync of the read model, unless one is already queued. A running one does not count:
/// it may have read the source before.
async fn ask_for_resync(
    shared: &Shared,
    target: &mut Connection,
    epoch: i64,
    (name, why): (&str, &str),
) -> Result<()> {
    if shared
        .bookkeeping
        .is_asked_for(target, name, Counts::OfWatch)
        .await?
    {
        return Ok(());
    }
    tracing::info!(
        read_model = name,
        "{why}: a resync will show whether rows changed"
    );
    shared
        .bookkeeping
        .request_by_watch(target, epoch, name)
        .await?;
    Ok(())
}

impl Watch {
    /// A watch that compares with these looks at the sources, and shapes of the lookups from before
    /// they were bound.
    pub(crate) fn new(
        beside: Beside,
        bound: &[Bound],
        looks: Vec<Look>,
        shapes: Vec<String>,
        passed: Arc<Passed>,
    ) -> Self {
        let Beside {
            shared,
            epoch,
            commands,
            pulse,
        } = beside;
        for (index, look) in ModelIndex::number(&looks) {
            passed.see_leaves(index, &look.parts, &BTreeSet::new());
        }
        let seen = bound.iter().zip(looks).zip(shapes);
        Self {
            shared,
            epoch,
            watched: seen
                .map(|((bound, look), shape)| Watched::new(bound, look, shape))
                .collect(),
            passed,
            miscounted: HashMap::new(),
            commands,
            pulse,
            seen_at: Instant::now(),
        }
    }

    /// Looks until the session ends. If a side cannot be reached, it looks later: the stream
    /// notices by itself.
    pub(crate) async fn run(mut self, client: &Client) {
        let mut backoff = Backoff::new(LOOK_INTERVAL, LOOK_INTERVAL);
        while !self.shared.stop.is_cancelled() {
            if let Err(error) = self.keep(client).await {
                tracing::debug!(%error, "the watch could not look");
                if self.seen_at.elapsed() > MOST_BLINDNESS {
                    // The applying session will not notice either: a host that lost its power sends
                    // nothing.
                    let error = error.context("the target does not answer");
                    let _ = self
                        .commands
                        .send(Command::End {
                            error,
                            abandon: true,
                        })
                        .await;
                }
            }
            self.pause(backoff.next_delay(fastrand::f64())).await;
        }
    }

    async fn keep(&mut self, client: &Client) -> Result<()> {
        let mut target = self.shared.target_session("watch").await?;
        self.shared.bookkeeping.look_shortly(&mut target).await?;
        while !self.shared.stop.is_cancelled() {
            let look = tokio::time::timeout(LOOK_PATIENCE, self.look(client, &mut target));
            let seen = look
                .await
                .map_err(|_| Error::transient("a look at the catalogs had no answer"))?;
            self.seen_at = Instant::now();
            if let Some(error) = seen? {
                // The session begins again, and with what is stored decides what to do.
                let _ = self
                    .commands
                    .send(Command::End {
                        error,
                        abandon: false,
                    })
                    .await;
                std::future::pending::<()>().await;
            }
            self.until_next_look(&mut target).await?;
        }
        Ok(())
    }

    /// Passes the time until the next look. A session that waits for a position is noticed soon,
    /// also while nothing changes.
    async fn until_next_look(&mut self, target: &mut Connection) -> Result<()> {
        let next = Instant::now() + LOOK_INTERVAL;
        while Instant::now() < next && !self.shared.stop.is_cancelled() {
            let waits = self.beat(next).await;
            if let Some(why) = self.shared.budget.exceeded() {
                let error = pressure::gap(why);
                let _ = self
                    .commands
                    .send(Command::End {
                        error,
                        abandon: true,
                    })
                    .await;
                std::future::pending::<()>().await;
            }
            let judges = self.judge_files(target).await?;
            if waits || judges || self.shared.budget.is_high() {
                // A stream that has ended hears nothing; the next session's watch looks again.
                let _ = self.commands.send(Command::Hurry).await;
            }
        }
        Ok(())
    }

    /// Waits for the next beat of the pulse, or as long as it is silent; returns whether a session
    /// waits for a position.
    async fn beat(&mut self, latest: Instant) -> bool {
        let pause = latest
            .saturating_duration_since(Instant::now())
            .min(MOST_PAUSE);
        tokio::select! {
            () = self.shared.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => false,
            Ok(()) = self.pulse.changed() => self.pulse.borrow_and_update().waits,
        }
    }

    /// Compares; returns an error with which the session cannot continue.
    async fn look(&mut self, client: &Client, target: &mut Connection) -> Result<Option<Error>> {
        let publication = &self.shared.settings.source.publication;
        let unseen: Vec<BTreeSet<u32>> = ModelIndex::number(&self.watched)
            .map(|(index, _)| self.passed.unseen(index))
            .collect();
        let looks = source::watch::look(client, publication, &sources(&self.shared)).await?;
        for (index, (now, unseen)) in ModelIndex::number(looks.into_iter().zip(unseen)) {
            let Some(watched) = index.of_mut(&mut self.watched) else {
                continue;
            };
            let seen = watched.see(now, !unseen.is_empty());
            self.passed.see_leaves(index, watched.leaves(), &unseen);
            match seen {
                Seen::Publication => {
                    return Ok(Some(Error::transient(format!(
                        "publication \"{publication}\" was changed"
                    ))));
                }
                Seen::Altered => {
                    return Ok(Some(Error::transient(format!(
                        "table \"{}\" was altered, renamed, dropped or created again",
                        watched.source
                    ))));
                }
                seen => self.follow(index, seen, target).await?,
            }
        }
        tracing::debug!("looked at the source's catalogs");
        if let Some(error) = self.look_at_lookups(target).await? {
            return Ok(Some(error));
        }
        self.look_for_damage(target).await
    }

    /// Acts on a look, unless the session must end, and stores what was seen.
    async fn follow(&self, index: ModelIndex, seen: Seen, target: &mut Connection) -> Result<()> {
        let Some(watched) = index.of(&self.watched) else {
            return Ok(());
        };
        match seen {
            Seen::Same | Seen::Publication | Seen::Altered => return Ok(()),
            Seen::Resync(why) => {
                let name = watched.lookup.to_string();
                ask_for_resync(&self.shared, target, self.epoch, (&name, why)).await?;
            }
            Seen::Passed => tracing::debug!(
                read_model = watched.lookup.to_string(),
                "another file of the table: the stream brought its TRUNCATE"
            ),
        }
        self.shared
            .bookkeeping
            .set_watched(target, (self.epoch, watched.id), &watched.stored())
            .await
    }

    /// Judges files that were seen before, once the stream has passed their position; returns
    /// whether others still wait for that.
    async fn judge_files(&mut self, target: &mut Connection) -> Result<bool> {
        let applied = self.passed.applied();
        for index in (0..self.watched.len()).map(ModelIndex) {
            let truncated = self.passed.truncated(index);
            let seen = index
                .of_mut(&mut self.watched)
                .map_or(Seen::Same, |watched| watched.pass(applied, truncated));
            self.follow(index, seen, target).await?;
        }
        Ok(self.watched.iter().any(Watched::waits_for_the_stream))
    }

    async fn look_at_lookups(&mut self, target: &mut Connection) -> Result<Option<Error>> {
        let lookups: Vec<TableName> = self
            .watched
            .iter()
            .map(|watched| watched.lookup.clone())
            .collect();
        let shapes = target::facts::shapes(target, &lookups).await?;
        let mut altered = None;
        for (watched, shape) in self.watched.iter_mut().zip(shapes) {
            if watched.shape != shape {
                watched.shape = shape;
                altered.get_or_insert(&watched.lookup);
            }
        }
        Ok(altered.map(|lookup| {
            Error::transient(format!(
                "lookup table \"{lookup}\" was altered, dropped or created again"
            ))
        }))
    }

    async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
