//! One session: from two connections to the end of the stream.
//!
//! ```text
//! connect both -> lock -> claim (epoch) -> bind read models -> publication
//!              -> resume | first copy or heal -> stream
//! ```
//!
//! Any error ends the session and closes both connections; the next one begins from what is stored.
//! So there is one way to start, whatever state the last process left.

use std::sync::Arc;

use crate::batch::Suspended;
use crate::connect::steady::check_steady;
use crate::connect::{Connection, Side};
use crate::error::Result;
use crate::lsn::Lsn;
use crate::ownership::Ownership;
use crate::progress::SourceIdentity;
use crate::read_model::ModelIndex;
use crate::run::bind::{Bound, bind_all};
use crate::run::lessons::Lessons;
use crate::run::owner::Owner;
use crate::run::ownership::check_slot;
use crate::run::preflight::{check_same_source, check_server};
use crate::run::shared::Shared;
use crate::run::{fence, locks, preflight, publish, report, unreadable, watch};
use crate::source::replication::Replication;
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::target;
use crate::target::bookkeeping::{Claim, Claimant, ModelState};
use crate::target::write::Writer;

mod heal;
mod leave;
mod limit;
mod resume;
mod streaming;
mod wait;

/// Everything of one session before the stream begins.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    client: Connection,
    replication: Replication,
    writer: Writer,
    source: SourceIdentity,
    /// Whether source and target are one cluster.
    own_cluster: bool,
    bound: Vec<Bound>,
    looks: Vec<Look>,
    shapes: Vec<String>,
}

/// Runs one session; returns when it shall end.
pub(crate) async fn session(shared: &Arc<Shared>, lessons: &mut Lessons) -> Result<()> {
    open_and_work(shared, lessons)
        .await
        .map_err(locks::explained)
}

async fn open_and_work(shared: &Arc<Shared>, lessons: &mut Lessons) -> Result<()> {
    let (session, claim) = Session::open(shared, lessons).await?;
    let epoch = claim.epoch;
    tokio::select! {
        biased;
        result = session.work(claim, lessons) => result,
        never = wait::beat(shared, epoch) => match never {},
    }
}

impl<'a> Session<'a> {
    async fn open(shared: &'a Arc<Shared>, lessons: &mut Lessons) -> Result<(Self, Claim)> {
        let limit = limit::of(&shared.settings);
        let mut ends = limit::within(limit, Ends::connect(shared, lessons)).await?;
        // For as long as another process owns the pipeline.
        fence::lock(shared, &mut ends.replication, &ends.client, &mut ends.conn).await?;
        limit::within(limit, Self::prepare(shared, lessons, ends)).await
    }

    async fn prepare(
        shared: &'a Arc<Shared>,
        lessons: &mut Lessons,
        mut ends: Ends,
    ) -> Result<(Self, Claim)> {
        let (claim, ownership) = ends.claim(shared, lessons).await?;
        let Bindings {
            bound,
            looks,
            shapes,
        } = ends.bind(shared, lessons, claim.epoch, &ownership).await?;
        let Ends {
            conn,
            client,
            replication,
            source,
        } = ends;
        let mut writer = Writer::new(conn, shared.bookkeeping.clone(), claim.epoch).await?;
        for (index, bound) in ModelIndex::number(&bound) {
            if let Ok(model) = &bound.model {
                writer.set_model(index, model.clone());
            }
        }
        let session = Self {
            shared,
            client,
            replication,
            writer,
            own_cluster: ownership.pipeline.system_identifier == source.system_identifier,
            source,
            bound,
            looks,
            shapes,
        };
        Ok((session, claim))
    }

    /// Copies everything if the stream cannot continue, and streams.
    async fn work(mut self, claim: Claim, lessons: &mut Lessons) -> Result<()> {
        let checkpoint = match self.what_is_wrong(&claim, lessons).await? {
            None => claim
                .checkpoint
                .as_ref()
                .map_or(Lsn::ZERO, |checkpoint| checkpoint.lsn),
            Some(why) => {
                self.wait_before_copying(&why, &claim).await?;
                self.copy_everything(&why, claim.healings, lessons).await?
            }
        };
        self.stream(&claim, checkpoint, lessons).await
    }
}

/// The connections of a session, before it owns the pipeline.
struct Ends {
    conn: Connection,
    client: Connection,
    replication: Replication,
    source: SourceIdentity,
}

impl Ends {
    async fn connect(shared: &Shared, lessons: &mut Lessons) -> Result<Self> {
        // A pooler that is there at the first session is found: later ones go the same way.
        let is_first = lessons.epoch.is_none();
        if is_first {
            let open = async || shared.target_plain_session("facts").await;
            check_steady(Side::Target, open).await?;
        }
        // Until the stream begins, every commit is durable, whatever target.synchronous_commit
        // says. So the claim flushes the position that it reads, which the last owner may have
        // stored asynchronously, and a merge of copies flushes the position that it stores.
        let mut conn = shared.target_session("apply").await?;
        shared.bookkeeping.ensure(&mut conn).await?;
        let copied = shared.bookkeeping.source(&mut conn).await?;
        let (replication, source) = match preflight::connect(shared, copied.as_ref()).await {
            Ok(connected) => connected,
            Err(error) if is_first => {
                return Err(preflight::or_another_pipeline(shared, &mut conn, error).await);
            }
            Err(error) => return Err(error),
        };
        shared.stay_with(Some(replication.instance()));
        let client = shared.source_session("facts").await?;
        locks::of_source(&client).await?;
        if is_first {
            let open = async || shared.source_session("facts").await;
            check_steady(Side::Source, open).await?;
        }
        check_server(&client).await?;
        // It is useless to wait for another pipeline.
        check_slot(shared, lessons, (&client, &mut conn), &source).await?;
        Ok(Self {
            conn,
            client,
            replication,
            source,
        })
    }

    /// Claims the pipeline: from here on the bookkeeping names this session's epoch.
    async fn claim(
        &mut self,
        shared: &Shared,
        lessons: &mut Lessons,
    ) -> Result<(Claim, Ownership)> {
        let conn = &mut self.conn;
        let bookkeeping = &shared.bookkeeping;
        let slot = &shared.settings.source.slot;
        let copying = ["copy", "resync"].map(|role| shared.application_name(role));
        bookkeeping.end_last_owner(conn, slot, &copying).await?;
        let claimant = Claimant {
            slot,
            publication: &shared.settings.source.publication,
            owner: &shared.owner,
            source: Some(&self.source),
        };
        let claim = bookkeeping.claim(conn, claimant).await?;
        lessons.epoch = Some(claim.epoch);
        if lessons.stuck.is_none() {
            lessons.stuck = bookkeeping.stuck(conn).await?;
        }
        // Before anything is bound or published: another server must change nothing. Values that
        // were read before may be another owner's.
        check_same_source(claim.source(), &self.source)?;
        let ownership =
            check_slot(shared, lessons, (&self.client, &mut *conn), &self.source).await?;
        bookkeeping.forget_progress(conn, claim.epoch).await?;
        Ok((claim, ownership))
    }

    /// Binds the read models, sees to the publication, and looks at both sides' tables.
    async fn bind(
        &mut self,
        shared: &Shared,
        lessons: &mut Lessons,
        epoch: i64,
        ownership: &Ownership,
    ) -> Result<Bindings> {
        let Self { conn, client, .. } = self;
        let settings = &shared.settings;
        let lookups = settings
            .read_models
            .iter()
            .map(|model| model.target.clone());
        let lookups: Vec<TableName> = lookups.collect();
        let mut shapes = target::facts::shapes(conn, &lookups).await?;
        let before = watch::look_before(shared, client).await?;
        let mut owner = Owner {
            conn,
            bookkeeping: &shared.bookkeeping,
            epoch,
        };
        let mut bound = bind_all(settings, client, &mut owner).await?;
        suspend_what_cannot_go_on(lessons, &mut owner, &mut bound).await?;
        unreadable::withdraw(shared, client, &mut owner, ownership, &mut bound).await?;
        publish::ensure(shared, client, &mut owner, ownership, &mut bound).await?;
        // Binding has created each lookup that was missing.
        let made = target::facts::shapes(owner.conn, &lookups).await?;
        for (shape, made) in shapes.iter_mut().zip(made) {
            if shape.is_empty() {
                *shape = made;
            }
        }
        let looks =
            watch::compare_with_stored(shared, client, &mut owner, &mut bound, &before).await?;
        Ok(Bindings {
            bound,
            looks,
            shapes,
        })
    }
}

/// The read models, and what their tables are like at both sides.
struct Bindings {
    bound: Vec<Bound>,
    looks: Vec<Look>,
    shapes: Vec<String>,
}

/// A read model that cannot take a transaction leaves before it. That is the position that the last
/// session reached.
async fn suspend_what_cannot_go_on(
    lessons: &mut Lessons,
    owner: &mut Owner<'_>,
    bound: &mut [Bound],
) -> Result<()> {
    for Suspended { index, error } in lessons.cannot_take.drain(..) {
        let Some(bound) = index.of_mut(bound) else {
            continue;
        };
        report::suspended(&bound.settings, &error, None);
        owner
            .bookkeeping
            .suspend(owner.conn, owner.epoch, bound.id, &error)
            .await?;
        bound.state = ModelState::Suspended;
    }
    Ok(())
}
