//! Exact copies: the source's rows under a slot's exported snapshot become shadows in the target.
//!
//! The snapshot holds exactly the transactions whose commit lies before the slot's consistent point C. Nothing is read under
//! it, catalogs included, before nothing that it sees as committed is listed as running any more (`source/settled.rs`
//! says why: on the server versions in use today reading earlier damages the master).

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Error, Result};
use crate::run::Shared;
use crate::run::bind::bind_source;
use crate::run::report::millis;
use crate::settings::ReadModelSettings;
use crate::source;
use crate::source::copy_query::copy_query;
use crate::source::snapshot::Snapshot;
use crate::status::Copy;
use crate::target::bookkeeping::CopyProgress;
use crate::target::model::TargetModel;
use crate::target::shadow::{Counter, ShadowWriter};
use crate::telemetry::line;

/// How long a snapshot may take to settle; a hung synchronous standby makes it endless.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// How often the copy looks whether somebody waits for its lock, and tells its progress.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log tells the progress of a copy, where no terminal shows it.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long the target may take to note the progress.
const TELL_PATIENCE: Duration = Duration::from_secs(1);

/// How long what a copy has left may take to be taken away.
const TAKE_AWAY_PATIENCE: Duration = Duration::from_secs(3);

/// A read model to be copied.
#[derive(Debug, Clone)]
pub struct ToCopy {
    /// Its index in the configuration.
    pub index: usize,
    /// Its rule.
    pub settings: ReadModelSettings,
    /// Its binding, as of before the slot was made.
    pub model: TargetModel,
}

/// What became of one read model's copy.
pub type Copied = (ToCopy, Result<()>);

/// Copies the read models into their shadows. A read model that fails by itself does not stop the others.
///
/// # Errors
/// Transient if the copy as a whole must start again: connection lost, table altered meanwhile, somebody waits.
pub async fn copy_all(
    shared: &Shared,
    snapshot_name: &str,
    models: Vec<ToCopy>,
    shadow: &mut ShadowWriter,
    stop: &CancellationToken,
) -> Result<Vec<Copied>> {
    let reader = shared.source_session("copy").await?;
    let observer = shared.source_session("observer").await?;
    let snapshot = Snapshot::open(reader, &observer, snapshot_name, SETTLE_PATIENCE).await?;
    tracing::debug!("the snapshot has settled");
    let mut copied = Vec::with_capacity(models.len());
    for to_copy in models {
        snapshot.lock_table(&to_copy.settings.source).await?;
        let estimate = check_unaltered(snapshot.client(), &to_copy).await?;
        let result = copy_one(shared, (&snapshot, &observer), &to_copy, shadow, estimate, stop).await;
        match result {
            Err(error) if !matches!(error.class(), Class::Refused | Class::Broken) => return Err(error),
            result => copied.push((to_copy, result)),
        }
    }
    snapshot.close().await;
    Ok(copied)
}

/// Takes away what a copy left that was given up in the middle, in a session of its own: the copy's may wait for something. A
/// target that is gone is left as it is; the next start looks, too.
pub async fn take_away(shared: &Shared, epoch: i64) {
    let taken = async {
        let mut conn = shared.target_session("cleaner").await?;
        let names = ["copy", "resync"].map(|role| shared.application_name(role));
        shared
            .bookkeeping
            .take_shadows_away(&mut conn, epoch, &names)
            .await
    };
    let taken = tokio::time::timeout(TAKE_AWAY_PATIENCE, taken).await;
    match taken.unwrap_or_else(|_| Err(Error::transient("the target has not answered"))) {
        Ok(()) => tracing::debug!("nothing of the copies is left"),
        Err(error) => tracing::debug!(%error, "what the copies have left stays for the next start"),
    }
}

/// The table as the snapshot sees it must be the one that the read model was bound to before the slot was made. Returns the
/// estimated number of its rows.
async fn check_unaltered(client: &Client, to_copy: &ToCopy) -> Result<Option<i64>> {
    let altered = || {
        Error::transient(format!(
            "table \"{}\" was altered while it was being copied",
            to_copy.settings.source
        ))
    };
    let table = source::facts::table(client, &to_copy.settings.source)
        .await?
        .ok_or_else(altered)?;
    let now = bind_source(&to_copy.settings, &table).map_err(|error| error.with_class(Class::Transient))?;
    if now != *to_copy.model.model {
        return Err(altered());
    }
    // Written with no more digits than a count has; a table that was never analysed says -1.
    Ok(format!("{:.0}", table.estimated_rows)
        .parse()
        .ok()
        .filter(|&rows: &i64| rows >= 0))
}

async fn copy_one(
    shared: &Shared,
    (snapshot, observer): (&Snapshot, &Client),
    to_copy: &ToCopy,
    shadow: &mut ShadowWriter,
    estimate: Option<i64>,
    stop: &CancellationToken,
) -> Result<()> {
    let model = &to_copy.model;
    let copied = Counter::default();
    let mut progress = Progress::new(shared, to_copy, estimate, &copied);
    let how = (snapshot, observer, stop);
    let mut result = fill(how, to_copy, shadow, &mut progress, false).await;
    if let Err(error) = &result
        && error.class() == Class::Refused
        && model.isolates()
    {
        tracing::debug!(%error, "the rows are copied again in small pieces to find those that are refused");
        copied.reset();
        result = fill(how, to_copy, shadow, &mut progress, true).await;
    }
    progress.end().await;
    result?;
    let (rows, bytes) = copied.read();
    tracing::info!(
        read_model = to_copy.settings.name(),
        rows,
        bytes,
        elapsed_ms = millis(progress.started.elapsed()),
        "copied"
    );
    Ok(())
}

/// Tells how far a copy is: `status` and a terminal every second, a log without one now and then.
struct Progress<'a> {
    shared: &'a Shared,
    to_copy: &'a ToCopy,
    estimate: Option<i64>,
    copied: &'a Counter,
    started: Instant,
    logged: Instant,
    /// A session of its own, since the copy's is busy; made when a copy lasts.
    conn: Option<PgConnection>,
}

impl<'a> Progress<'a> {
    fn new(shared: &'a Shared, to_copy: &'a ToCopy, estimate: Option<i64>, copied: &'a Counter) -> Self {
        Self {
            shared,
            to_copy,
            estimate,
            copied,
            started: Instant::now(),
            logged: Instant::now(),
            conn: None,
        }
    }

    async fn tell(&mut self) {
        let (rows, bytes) = self.copied.read();
        let seconds = self.started.elapsed().as_secs_f64();
        let copy = Copy::new(rows, self.estimate, Some(bytes), Some(seconds));
        if line::is_on() {
            line::show([(self.to_copy.settings.name().as_str(), &copy)]);
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            tracing::info!(
                read_model = self.to_copy.settings.name(),
                rows,
                bytes,
                estimated_rows = self.estimate,
                percent = copy.percent,
                rows_per_second = copy.rows_per_second.map(f64::round),
                seconds_left = copy.seconds_left.map(f64::round),
                "copying"
            );
        }
        let progress = CopyProgress {
            rows,
            bytes,
            estimate: self.estimate,
            seconds,
        };
        self.store(Some(progress)).await;
    }

    async fn end(&mut self) {
        line::clear();
        if self.conn.is_some() {
            self.store(None).await;
        }
    }

    /// For people only: a copy does not fail, or wait for long, because of it.
    async fn store(&mut self, progress: Option<CopyProgress>) {
        let stored = tokio::time::timeout(TELL_PATIENCE, self.try_store(progress)).await;
        if !matches!(stored, Ok(Ok(()))) {
            self.conn = None;
        }
    }

    async fn try_store(&mut self, progress: Option<CopyProgress>) -> Result<()> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => self.conn.insert(self.shared.target_session("progress").await?),
        };
        let id = self.to_copy.model.id;
        self.shared
            .bookkeeping
            .set_copy_progress(conn, id, progress)
            .await
    }
}

impl Drop for Progress<'_> {
    /// A copy that is given up tells its end too.
    fn drop(&mut self) {
        line::clear();
    }
}

/// Fills an empty shadow, unless somebody waits for the table or the process is asked to stop.
async fn fill(
    (snapshot, observer, stop): (&Snapshot, &Client, &CancellationToken),
    to_copy: &ToCopy,
    shadow: &mut ShadowWriter,
    progress: &mut Progress<'_>,
    carefully: bool,
) -> Result<()> {
    let model = &to_copy.model;
    shadow.create(model).await?;
    let rows = snapshot.copy_out(&copy_query(&model.model)).await?;
    let copied = progress.copied;
    let fill = async {
        if carefully {
            shadow.fill_carefully(model, rows, copied).await
        } else {
            shadow.fill(model, rows, copied).await
        }
    };
    let mut fill = std::pin::pin!(fill);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::new(Class::Interrupted, "stopped while copying")),
            result = &mut fill => return result,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                if snapshot.anybody_waits_for_us(observer).await? {
                    return Err(Error::transient(format!(
                        "gave way to a session that waits for table \"{}\"", to_copy.settings.source
                    )));
                }
                progress.tell().await;
            }
        }
    }
}
