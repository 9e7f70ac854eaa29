//! The plain comparison: lookups against their sources as both are now, where no `cdc` runs that
//! could compare exactly.
//!
//! It creates only temporary tables in the target's session: no publication, no slot, no
//! bookkeeping, no lookup row. So it works before the first run, with roles that may only read. A
//! plain snapshot is no position of the stream, and an event-driven sync that keeps the lookup may
//! be some seconds behind: each difference is looked at again, and counts only if neither row has
//! changed in the meantime.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::connect::server::Wanted;
use crate::connect::{Connection, Side};
use crate::error::{Class, Error, Result};
use crate::facts::SourceTable;
use crate::read_model::ReadModel;
use crate::read_model::follow::{self, follow};
use crate::run::bind::source_table;
use crate::run::preflight::check_encoding;
use crate::settings::{ReadModelSettings, Settings};
use crate::source;
use crate::source::copy_query::live_rows_query;
use crate::source::snapshot::Snapshot;
use crate::status::Copy;
use crate::target;
use crate::target::difference::Difference;
use crate::target::plain::{Bound, Look, PlainSession, refused_by_run};
use crate::target::shadow::{Counter, Filling};
use crate::telemetry::progress as terminal;

/// Time between the two looks at what differs: time enough for a change that is under way.
pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// How often a read model is tried whose comparison fails for a passing reason, and the pauses.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// How often the observer looks whether a session waits for the lock of the source's table.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is said of a source that is a standby.
const STANDBY: &str = "the source is a standby: what it has not received yet is not compared.";

/// application_name of its sessions.
const NAME: &str = "cdc verify";

/// What was found in one lookup.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// How lookup and source differ.
    pub difference: Difference,
    /// What people should know of the read model besides.
    pub notes: Vec<String>,
}

/// The result of the comparison of one read model.
pub(crate) type Compared = (String, Result<Found>);

/// Compares these read models one after the other, and names at most `keys` keys of each kind of
/// difference. It may be dropped at any time: the sessions end, and with them everything that they
/// have created.
pub(crate) async fn compare(
    settings: &Settings,
    read_models: &[&ReadModelSettings],
    keys: u32,
) -> Vec<Compared> {
    let mut all = Vec::with_capacity(read_models.len());
    for read_model in read_models {
        let found = compare_one(settings, read_model, keys).await;
        let found = found.map_err(|error| match error.class() {
            // As for `cdc run`, which refuses to begin.
            Class::Broken => error.with_class(Class::Configuration),
            _ => error,
        });
        let name = read_model.name();
        all.push((
            name.clone(),
            found.map_err(|error| error.context(format!("read model \"{name}\""))),
        ));
    }
    all
}

/// Tries again after a passing error: a lock that was not free, a session that was lost, a table
/// that was altered in the meantime.
async fn compare_one(
    settings: &Settings,
    read_model: &ReadModelSettings,
    keys: u32,
) -> Result<Found> {
    let mut tries = 1;
    loop {
        let found = async {
            Comparison::open(settings, read_model)
                .await?
                .carry_out(keys)
                .await
        };
        match found.await {
            Err(error) if error.is_transient() && tries < TRIES => {
                tracing::warn!(read_model = read_model.name(), %error, attempt = tries, "comparing again");
                tokio::time::sleep(PAUSE * tries).await;
                tries += 1;
            }
            result => return result,
        }
    }
}

/// The comparison of one read model, with sessions of its own.
struct Comparison<'a> {
    settings: &'a Settings,
    read_model: &'a ReadModelSettings,
    /// Reads the source's catalogs, and looks for sessions that wait for the reader.
    observer: Connection,
    /// The kind of server that it is with.
    wanted: Wanted,
    session: PlainSession,
    notes: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// The role that reads.
    fn role(&self) -> &str {
        &self.settings.source.conninfo.user
    }

    async fn open(settings: &'a Settings, read_model: &'a ReadModelSettings) -> Result<Self> {
        let conninfo = &settings.source.conninfo;
        // As `cdc run` does; but if there is no primary, a standby can be read, too.
        let (observer, wanted) =
            match Connection::open(Side::Source, conninfo, NAME, Wanted::Primary).await {
                Err(error) if error.is_transient() => {
                    let any = Connection::open(Side::Source, conninfo, NAME, Wanted::Any).await;
                    (any?, Wanted::Any)
                }
                observer => (observer?, Wanted::Primary),
            };
        let server = source::facts::server(&observer).await?;
        check_encoding(&server)?;
        let target = target::connect::connect(&settings.target.conninfo, NAME).await?;
        Ok(Self {
            settings,
            read_model,
            observer,
            wanted,
            session: PlainSession::open(target).await?,
            notes: server
                .in_recovery
                .then(|| STANDBY.to_owned())
                .into_iter()
                .collect(),
        })
    }

    async fn carry_out(mut self, keys: u32) -> Result<Found> {
        let (first, mut look) = self.look(1).await?;
        let mut last = first.clone();
        if look.differing() > 0 {
            tracing::info!(
                read_model = self.read_model.name(),
                rows = look.differing(),
                after_s = BETWEEN_LOOKS.as_secs(),
                "what differs is looked at again"
            );
            tokio::time::sleep(BETWEEN_LOOKS).await;
            (last, look) = self.look(2).await?;
            if !last.is_as(&first) {
                return Err(altered(self.read_model));
            }
        }
        let difference = self.session.judge((&first, &last), look, keys).await?;
        self.notes.extend(last.notes);
        Ok(Found {
            difference,
            notes: self.notes,
        })
    }

    /// One look: the source's rows in one snapshot, then the lookup.
    async fn look(&mut self, number: i64) -> Result<(Bound, Look)> {
        // An error about a missing table is ours, not that of the server which cannot lock it.
        let table = source_table(self.read_model, &self.observer).await?;
        let model = follow::compare(self.read_model, &table, self.role())?;
        let mut bound = self
            .session
            .bind(model.clone(), &table)
            .await?
            .at_look(number);
        if let Err(error) = follow(self.read_model, &table, &[], self.role()) {
            bound.notes.insert(0, refused_by_run(&error));
        }
        match self.fill(&bound, &model, Filling::AtOnce).await {
            Err(error) if error.class() == Class::Rejected => {
                self.fill(&bound, &model, Filling::Carefully).await?
            }
            filled => filled?,
        }
        let look = self.session.look(&bound).await?;
        Ok((bound, look))
    }

    /// Reads the source's rows in a transaction of their own, as long as no session waits for the
    /// table.
    async fn fill(&mut self, bound: &Bound, model: &ReadModel, filling: Filling) -> Result<()> {
        let conninfo = &self.settings.source.conninfo;
        let reader = Connection::open(Side::Source, conninfo, NAME, self.wanted).await?;
        let snapshot = Snapshot::now(reader, &self.observer).await?;
        snapshot.lock(&self.read_model.source).await?;
        let table = source_table(self.read_model, snapshot.client()).await?;
        if follow::compare(self.read_model, &table, self.role())? != *model {
            return Err(altered(self.read_model));
        }
        let copied = Counter::default();
        let progress = Progress::new(self.read_model, &table, &copied);
        let reading = async {
            // Answered with the first rows only, which may take long to find among dead ones.
            let rows = snapshot.copy_out(&live_rows_query(model)).await?;
            self.session.fill(bound, rows, &copied, filling).await
        };
        unless_blocking(
            self.read_model,
            (&snapshot, &self.observer),
            reading,
            &progress,
        )
        .await?;
        snapshot.close().await;
        Ok(())
    }
}

/// Reads on as long as no session waits for the table.
async fn unless_blocking(
    read_model: &ReadModelSettings,
    (snapshot, observer): (&Snapshot, &Client),
    reading: impl Future<Output = Result<()>>,
    progress: &Progress<'_>,
) -> Result<()> {
    let mut reading = std::pin::pin!(reading);
    loop {
        tokio::select! {
            biased;
            read = &mut reading => return read,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                progress.show();
                if snapshot.anybody_waits_for_us(observer).await? {
                    snapshot.give_way(observer).await?;
                    return Err(Error::transient(format!(
                        "gave way to a session that waits for table \"{}\"", read_model.source
                    )));
                }
            }
        }
    }
}

fn altered(read_model: &ReadModelSettings) -> Error {
    Error::transient(format!(
        "the tables of read model \"{}\" were altered while they were being compared",
        read_model.name()
    ))
}

/// Shows on a terminal how far the reading is, and clears the line at the end.
struct Progress<'a> {
    name: String,
    copied: &'a Counter,
    estimate: Option<i64>,
    started: Instant,
}

impl<'a> Progress<'a> {
    fn new(read_model: &ReadModelSettings, table: &SourceTable, copied: &'a Counter) -> Self {
        Self {
            name: read_model.name(),
            copied,
            estimate: table.estimate(),
            started: Instant::now(),
        }
    }

    fn show(&self) {
        if terminal::is_on() {
            let (rows, bytes) = self.copied.read();
            let seconds = self.started.elapsed().as_secs_f64();
            let copy = Copy::new(rows, self.estimate, Some(bytes), Some(seconds));
            terminal::show([(self.name.as_str(), &copy)]);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        terminal::clear();
    }
}
