//! `cdc demo`: shows on two throw-away servers how a report follows the master data.
//!
//! In: PostgreSQL's server programs, nothing else. Out: a story on the terminal. The real engine
//! runs in this process; the story changes labels at the source with plain SQL, waits until the
//! lookup shows the same rows, and prints both, with the time from the source's COMMIT to that
//! moment. Nothing is left behind, unless `--keep` asks for it.

mod screen;
mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use self::screen::{Screen, Tables};
use self::story::{CHAPTERS, Chapter};
use crate::cluster::{Cluster, Options};
use crate::conninfo::{Conninfo, Host, SslMode};
use crate::error::{Class, Error, Result};
use crate::settings::{
    ReadModelSettings, ResyncSettings, Settings, SourceSettings, TargetSettings,
};
use crate::sql;

const SOURCE_DATABASE: &str = "app_master_db";
const TARGET_DATABASE: &str = "app_core_db";
const SOURCE_SQL: &str = include_str!("../sql/demo/source.sql");
const TARGET_SQL: &str = include_str!("../sql/demo/target.sql");
const REPORT_SQL: &str = include_str!("../sql/demo/report.sql");
/// The people of `sql/demo/target.sql`, whose reports are shown.
const REFERENCE_NUMBERS: [&str; 2] = ["REF001", "REF002"];

/// How long the lookup may take to follow: far more than it ever needs.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks at the lookup; the measured times are as fine as this.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the engine may take to stop after the last chapter.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the demo; `stop` ends it early.
///
/// # Errors
/// Configuration: PostgreSQL's server programs are missing. Transient: the lookup did not follow in
/// time. Interrupted: `stop` was asked for. Otherwise what the engine says.
pub(crate) async fn run(
    keep: bool,
    pg_bin: Option<PathBuf>,
    stop: CancellationToken,
) -> Result<()> {
    let mut screen = Screen::stdout();
    let servers = Servers::start(pg_bin, &mut screen)?;
    let engine_stop = stop.child_token();
    let told = {
        let engine = engine(servers.settings(), engine_stop.clone());
        let story = tell(&servers, &mut screen);
        tokio::pin!(engine, story);
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::new(Class::Interrupted, "interrupted")),
            told = &mut story => {
                engine_stop.cancel();
                // The slot stays active until the engine has ended; a late end does no harm here.
                let _ = tokio::time::timeout(GRACE, &mut engine).await;
                told
            }
            ended = &mut engine => {
                Err(ended.err().unwrap_or_else(|| Error::transient("the engine ended before the demo did")))
            }
        }
    };
    match (&told, keep) {
        (Ok(()), true) => servers.keep(&mut screen),
        _ => {
            drop(servers);
            screen.line("");
            screen.good("servers stopped, everything removed");
        }
    }
    told
}

/// The engine that `cdc run` runs.
async fn engine(settings: Settings, stop: CancellationToken) -> Result<()> {
    crate::run::run(settings, stop).await
}

/// The two servers.
struct Servers {
    source: Cluster,
    target: Cluster,
}

impl Servers {
    /// Starts both at once, with databases and rows in them.
    fn start(pg_bin: Option<PathBuf>, screen: &mut Screen) -> Result<Self> {
        let started = Instant::now();
        let start = |name: &str, database: &str, seed: &str| -> Result<Cluster> {
            let cluster = Cluster::start(&Options {
                name: name.to_owned(),
                pg_bin: pg_bin.clone(),
                ..Options::default()
            })?;
            cluster.create_database(database)?;
            cluster.execute(database, seed)?;
            Ok(cluster)
        };
        let (source, target) = std::thread::scope(|scope| {
            let source = scope.spawn(|| start("source", SOURCE_DATABASE, SOURCE_SQL));
            let target = start("target", TARGET_DATABASE, TARGET_SQL);
            let source = source
                .join()
                .unwrap_or_else(|_| Err(Error::transient("the start broke off")));
            (source, target)
        });
        let servers = Self {
            source: source?,
            target: target?,
        };
        let major = servers.source.programs().major();
        screen.title(&format!(
            "cdc demo: two throw-away PostgreSQL {major} servers"
        ));
        screen.line("");
        screen.line(&format!(
            "  source  {SOURCE_DATABASE}   labels                    the master data"
        ));
        screen.line(&format!(
            "  target  {TARGET_DATABASE}     labels_lookup, resources  what the reports read"
        ));
        screen.line("");
        screen.good(&format!(
            "servers started in {}",
            screen::millis(started.elapsed())
        ));
        Ok(servers)
    }

    /// What a person would put into `cdc.toml`: two URLs, the rest is default.
    fn settings(&self) -> Settings {
        Settings {
            source: SourceSettings {
                conninfo: conninfo(&self.source, SOURCE_DATABASE),
                publication: "cdc".to_owned(),
                slot: "cdc".to_owned(),
                max_retained_wal: None,
                failover: true,
                publish_projected_columns: false,
            },
            target: TargetSettings {
                conninfo: conninfo(&self.target, TARGET_DATABASE),
                schema: "cdc".to_owned(),
                synchronous_commit: true,
            },
            read_models: vec![ReadModelSettings::labels()],
            resync: ResyncSettings::default(),
            status_interval: Duration::from_secs(10),
            log_level: "info".to_owned(),
        }
    }

    /// Leaves both running and says how to use and how to remove them.
    fn keep(self, screen: &mut Screen) {
        let Self { source, target } = self;
        let (source_url, target_url) = (source.url(SOURCE_DATABASE), target.url(TARGET_DATABASE));
        let pids = [&source, &target].map(|cluster| cluster.pid().unwrap_or_default());
        let directories =
            [&source, &target].map(|cluster| cluster.socket_dir().display().to_string());
        screen.heading("The servers are still running (--keep)");
        screen.line("  look at them:");
        for cluster in [(&source, SOURCE_DATABASE), (&target, TARGET_DATABASE)] {
            screen.code(&format!(
                "psql -U postgres -h {} -p {} {}",
                cluster.0.socket_dir().display(),
                cluster.0.port(),
                cluster.1
            ));
        }
        screen.line("  let the lookup follow again:");
        screen.code(&format!("export CDC_SOURCE_URL='{source_url}'"));
        screen.code(&format!("export CDC_TARGET_URL='{target_url}'"));
        screen.code("cdc run");
        screen.line("  stop and remove them:");
        screen.code(&format!(
            "kill -QUIT {} && sleep 1",
            pids.map(|pid| pid.to_string()).join(" ")
        ));
        screen.code(&format!("rm -rf {}", directories.join(" ")));
        source.keep();
        target.keep();
    }
}

fn conninfo(cluster: &Cluster, database: &str) -> Conninfo {
    Conninfo {
        hosts: vec![Host {
            host: cluster.socket_dir().to_string_lossy().into_owned(),
            address: None,
            port: cluster.port(),
        }],
        database: database.to_owned(),
        user: "postgres".to_owned(),
        ssl_mode: SslMode::Disable,
        ..Conninfo::default()
    }
}

/// Waits for the first copy, then plays each chapter.
async fn tell(servers: &Servers, screen: &mut Screen) -> Result<()> {
    let started = Instant::now();
    let source = connect(&servers.source.url(SOURCE_DATABASE)).await?;
    let target = connect(&servers.target.url(TARGET_DATABASE)).await?;
    let lookup = follow(&source, &target, started).await?;
    screen.good(&format!(
        "cdc run: publication, slot and first copy of {} labels done in {}",
        lookup.rows.len(),
        screen::millis(lookup.after)
    ));
    let mut stage = Stage {
        source,
        target,
        screen,
        tables: Tables::default(),
    };
    stage.screen.line("");
    stage.show(lookup).await?;
    for (number, chapter) in (1..).zip(CHAPTERS) {
        stage.play(number, chapter).await?;
    }
    Ok(())
}

/// Where the chapters are played.
struct Stage<'a> {
    source: Client,
    target: Client,
    screen: &'a mut Screen,
    tables: Tables,
}

impl Stage<'_> {
    async fn play(&mut self, number: usize, chapter: &Chapter) -> Result<()> {
        self.screen.heading(&format!("{number}. {}", chapter.title));
        for statement in chapter.statements {
            self.screen
                .code(&format!("{SOURCE_DATABASE}> {statement};"));
        }
        // One string is one transaction.
        let transaction = chapter.statements.join("; ");
        let done = self.source.batch_execute(&transaction).await;
        done.map_err(failed)?;
        let committed = Instant::now();
        let lookup = follow(&self.source, &self.target, committed).await?;
        self.screen.good(&format!(
            "in the lookup {} after the commit",
            screen::millis(lookup.after)
        ));
        self.screen.line("");
        self.show(lookup).await?;
        self.screen.remark(chapter.remark);
        Ok(())
    }

    /// The lookup and the report.
    async fn show(&mut self, lookup: Followed) -> Result<()> {
        let report = reports(&self.target).await?;
        self.screen.tables(&mut self.tables, lookup.rows, report);
        Ok(())
    }
}

/// What the lookup shows, and since when.
struct Followed {
    rows: Vec<Vec<String>>,
    after: Duration,
}

/// Waits until the lookup equals the live rows of the source.
async fn follow(source: &Client, target: &Client, since: Instant) -> Result<Followed> {
    const LIVE: &str =
        "SELECT code, label, display_name FROM labels WHERE deleted_at IS NULL ORDER BY code";
    const LOOKUP: &str = "SELECT code, label, display_name FROM labels_lookup ORDER BY code";
    // The reader asks first, so that the time of this query is not a part of the measured time.
    let (expected, mut seen) = tokio::try_join!(rows(source, LIVE), rows(target, LOOKUP))?;
    loop {
        let after = since.elapsed();
        if seen == expected {
            return Ok(Followed { rows: seen, after });
        }
        if after > DEADLINE {
            let seconds = DEADLINE.as_secs();
            return Err(Error::transient(format!(
                "the lookup did not follow within {seconds} s"
            )));
        }
        tokio::time::sleep(PAUSE).await;
        seen = rows(target, LOOKUP).await?;
    }
}

/// The report, sent as JasperReports would send it, for each person.
async fn reports(target: &Client) -> Result<Vec<Vec<String>>> {
    let mut reports = Vec::new();
    for number in REFERENCE_NUMBERS {
        reports.extend(rows(target, &REPORT_SQL.replace("$1", &sql::literal(number))).await?);
    }
    Ok(reports)
}

/// All rows of a query, as text.
async fn rows(client: &Client, query: &str) -> Result<Vec<Vec<String>>> {
    let messages = client.simple_query(query).await.map_err(failed)?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).unwrap_or_default().to_owned())
                .collect(),
        ),
        _ => None,
    });
    Ok(rows.collect())
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
    tokio::spawn(async move {
        // The next statement reports the error.
        let _ = connection.await;
    });
    Ok(client)
}

fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(refusal) => Error::transient(refusal.message()).with_sqlstate(refusal.code().code()),
        None => Error::transient("the connection failed").with_source(error),
    }
}
