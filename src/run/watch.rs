//! The watch: every ten seconds one cheap query a side, for what the stream does not tell.
//!
//! What it finds is stored with each read model, so a difference is noticed across restarts too:
//!
//! | difference | what follows |
//! |---|---|
//! | the publication was made again | the old slot may never pass it: healing |
//! | its options or its entries for the table | changes may be missing: that read model is copied |
//! | the table or the lookup was made again or renamed, a column that is used or the replica identity changed, the lookup's columns changed | bound anew, and copied if it has to be |
//! | another file (rewrite, TRUNCATE, ATTACH, DETACH) | one resync of that read model |
//! | bookkeeping or a map is gone at the target | made again and copied |
//! | lookup or map have another number of rows than was written | one resync of that read model |
//!
//! Between two looks it tells the stream when somebody waits in `wait_for` for a position.
//!
//! A TRUNCATE that the stream brought looks like a rewrite: the resync then finds nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::run::Shared;
use crate::run::bind::Bound;
use crate::run::budget;
use crate::run::stream::Command;
use crate::source;
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::{Damage, ModelState};

/// How often the watch looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody waits for a position.
const WAITERS_INTERVAL: Duration = Duration::from_millis(250);

/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);

/// How long the target may not be seen before the session gives the batch in hand up.
const MOST_BLINDNESS: Duration = Duration::from_secs(90);

/// Longest delay between two resyncs of a read model whose rows are miscounted again and again.
const MOST_ASKING_DELAY: Duration = Duration::from_secs(3600);

const ANOTHER_FILE: &str = "the source's table has another file";

/// What a session's watch compares with.
pub struct Watch {
    shared: Arc<Shared>,
    epoch: i64,
    sources: Vec<TableName>,
    /// Columns of the source that are used; `None` where they cannot be told, since the read model is not bound.
    used: Vec<Option<Vec<String>>>,
    lookups: Vec<TableName>,
    ids: Vec<i32>,
    looks: Vec<Look>,
    shapes: Vec<String>,
    /// Read models that were miscounted when it was looked last, and when a resync of them may be asked for again: what
    /// comes back at once must not load the master.
    miscounted: HashMap<i32, (Backoff, Instant)>,
    commands: mpsc::Sender<Command>,
    seen_at: Instant,
}

/// Looks at both sides for the first time in a session, and compares with what was stored: read models that changed
/// in a way that the stream did not tell are suspended, or a resync of them is asked for.
pub async fn compare_with_stored(
    shared: &Shared,
    client: &Client,
    target: &mut PgConnection,
    epoch: i64,
    bound: &mut [Bound],
) -> Result<Vec<Look>> {
    let publication = &shared.settings.source.publication;
    let sources: Vec<TableName> = bound.iter().map(|bound| bound.settings.source.clone()).collect();
    let looks = source::watch::look(client, publication, &sources).await?;
    for (bound, look) in bound.iter_mut().zip(&looks) {
        if bound
            .model
            .as_ref()
            .is_ok_and(|model| look.oid != Some(model.model.source_oid))
        {
            return Err(Error::transient(format!(
                "table \"{}\" was altered meanwhile",
                bound.settings.source
            )));
        }
        let (published, storage) = shared.bookkeeping.watched(target, bound.id).await?;
        let in_step = bound.state == ModelState::InStep;
        if in_step && published.is_some_and(|published| published != look.published) {
            let error = Error::broken("its table's publication was changed, so changes may be missing");
            tracing::warn!(read_model = bound.settings.name(), %error, "read model is suspended and copied again");
            shared
                .bookkeeping
                .suspend(target, epoch, bound.id, &error)
                .await?;
            bound.state = ModelState::Suspended;
        } else if in_step && storage.is_some_and(|storage| storage != look.storage) {
            ask_for_resync(shared, target, epoch, (&bound.settings.name(), ANOTHER_FILE)).await?;
        }
        shared
            .bookkeeping
            .set_watched(target, (epoch, bound.id), &look.published, &look.storage)
            .await?;
    }
    Ok(looks)
}

/// Asks for a resync of the read model, unless one is to begin anyway: what runs may have read the source before.
async fn ask_for_resync(
    shared: &Shared,
    target: &mut PgConnection,
    epoch: i64,
    (name, why): (&str, &str),
) -> Result<()> {
    if shared.bookkeeping.is_asked_for(target, name, false).await? {
        return Ok(());
    }
    tracing::info!(
        read_model = name,
        "{why}: a resync will tell whether rows changed"
    );
    shared.bookkeeping.request_by_watch(target, epoch, name).await?;
    Ok(())
}

impl Watch {
    /// A watch that compares with these looks at the sources, and shapes of the lookups from before they were bound.
    pub fn new(
        (shared, epoch): (Arc<Shared>, i64),
        bound: &[Bound],
        (looks, shapes): (Vec<Look>, Vec<String>),
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            shared,
            epoch,
            sources: bound.iter().map(|bound| bound.settings.source.clone()).collect(),
            used: bound
                .iter()
                .map(|bound| Some(bound.model.as_ref().ok()?.model.source_columns()))
                .collect(),
            lookups: bound.iter().map(|bound| bound.settings.target.clone()).collect(),
            ids: bound.iter().map(|bound| bound.id).collect(),
            looks,
            shapes,
            miscounted: HashMap::new(),
            commands,
            seen_at: Instant::now(),
        }
    }

    /// Looks until the session ends. A side that cannot be reached is looked at later: the stream notices by itself.
    pub async fn run(mut self, client: &Client) {
        let mut backoff = Backoff::new(LOOK_INTERVAL, LOOK_INTERVAL);
        while !self.shared.stop.is_cancelled() {
            if let Err(error) = self.keep(client).await {
                tracing::debug!(%error, "the watch could not look");
                if self.seen_at.elapsed() > MOST_BLINDNESS {
                    // The session that applies will not be told either: a host that lost its power sends nothing.
                    let error = error.context("the target does not answer");
                    let _ = self.commands.send(Command::End { error, abandon: true }).await;
                }
            }
            self.pause(backoff.next_delay(fastrand::f64())).await;
        }
    }

    async fn keep(&mut self, client: &Client) -> Result<()> {
        let mut target = self.shared.target_session("watch").await?;
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

    /// Passes the time until the next look; whoever waits for a position is heard soon, also while nothing changes.
    async fn until_next_look(&self, target: &mut PgConnection) -> Result<()> {
        let next = Instant::now() + LOOK_INTERVAL;
        while Instant::now() < next && !self.shared.stop.is_cancelled() {
            self.pause(WAITERS_INTERVAL).await;
            if let Some(why) = self.shared.budget.exceeded() {
                let error = budget::gap(why);
                let _ = self.commands.send(Command::End { error, abandon: true }).await;
                std::future::pending::<()>().await;
            }
            let waits = self.shared.bookkeeping.somebody_waits(target);
            let waits = tokio::time::timeout(LOOK_PATIENCE, waits)
                .await
                .map_err(|_| Error::transient("a look at who waits had no answer"))??;
            if waits || self.shared.budget.is_high() {
                // A stream that has ended hears nothing; the next session's watch looks again.
                let _ = self.commands.send(Command::Hurry).await;
            }
        }
        Ok(())
    }

    /// Compares; returns what the session cannot go on with.
    async fn look(&mut self, client: &Client, target: &mut PgConnection) -> Result<Option<Error>> {
        let publication = &self.shared.settings.source.publication;
        let looks = source::watch::look(client, publication, &self.sources).await?;
        for (index, (before, now)) in self.looks.iter().zip(&looks).enumerate() {
            let Some(table) = self.sources.get(index) else {
                continue;
            };
            if before.publication != now.publication || before.published != now.published {
                return Ok(Some(Error::transient(format!(
                    "publication \"{publication}\" was changed"
                ))));
            }
            let used = self.used.get(index).and_then(Option::as_deref);
            if !now.is_same_table(before, used) {
                return Ok(Some(Error::transient(format!(
                    "table \"{table}\" was altered, renamed, dropped or made again"
                ))));
            }
            if before.storage != now.storage
                && let (Some(lookup), Some(id)) = (self.lookups.get(index), self.ids.get(index))
            {
                ask_for_resync(
                    &self.shared,
                    target,
                    self.epoch,
                    (&lookup.to_string(), ANOTHER_FILE),
                )
                .await?;
                self.shared
                    .bookkeeping
                    .set_watched(target, (self.epoch, *id), &now.published, &now.storage)
                    .await?;
            }
        }
        self.looks = looks;
        let shapes = target::facts::shapes(target, &self.lookups).await?;
        let before = std::mem::replace(&mut self.shapes, shapes);
        let changed = before
            .iter()
            .zip(&self.shapes)
            .position(|(before, now)| before != now);
        if let Some(lookup) = changed.and_then(|at| self.lookups.get(at)) {
            return Ok(Some(Error::transient(format!(
                "lookup table \"{lookup}\" was altered, dropped or made again"
            ))));
        }
        self.look_for_damage(target).await
    }

    /// Looks at what only the target knows.
    async fn look_for_damage(&mut self, target: &mut PgConnection) -> Result<Option<Error>> {
        let models: Vec<(i32, &TableName)> = self.ids.iter().copied().zip(&self.lookups).collect();
        let miscounted = match self.shared.bookkeeping.damage(target, &models).await? {
            Some(Damage::Gone(table)) => {
                return Ok(Some(Error::transient(format!(
                    "table {table} of the bookkeeping is gone"
                ))));
            }
            Some(Damage::Miscounted(ids)) => ids,
            None => Vec::new(),
        };
        self.miscounted.retain(|id, _| miscounted.contains(id));
        for (id, lookup) in models.iter().filter(|(id, _)| miscounted.contains(id)) {
            let name = lookup.to_string();
            let (backoff, next) = self
                .miscounted
                .entry(*id)
                .or_insert_with(|| (Backoff::new(LOOK_INTERVAL, MOST_ASKING_DELAY), Instant::now()));
            // What runs writes the lookup, or has not come to it.
            if *next <= Instant::now() && !self.shared.bookkeeping.is_asked_for(target, &name, true).await? {
                let why = "the lookup or its map has another number of rows than was written";
                ask_for_resync(&self.shared, target, self.epoch, (&name, why)).await?;
                *next = Instant::now() + backoff.next_delay(0.0);
            }
        }
        Ok(None)
    }

    async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}
