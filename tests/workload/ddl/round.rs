//! A campaign: groups of tables that one `cdc` follows, and rounds in which each group draws a kind
//! of DDL.
//!
//! A round begins and ends at rest, with the tables as the read models want them. What a group does
//! in it follows from the seed, the number of the round and that of the group, so a round can be
//! replayed without those before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::super::sessions::connect;
use super::super::support::{
    DEADLINE, Pair, Side, Signal, database_pair_on, own_cluster, pg, value, wait_until,
};
use super::faults::{Victims, draw};
use super::history::History;
use super::kinds::Kind;
use super::plan::{Step, end, plan};
use super::reader::Reader;
use super::tables::{MODELS, config, source_sql, target_sql};
use super::timeline::Timeline;
use super::writer::{JOURNAL, Writer, base, read};

/// Rows of each group's ordinary table, beside those that come and go: one is large enough for a
/// copy to take a while.
const ROWS: [u32; 4] = [30, 1500, 30, 200];

/// Groups of tables; the last one is left as it is.
pub const GROUPS: usize = ROWS.len();

/// Rounds after which everything is compared by `cdc` too.
const COMPARED: u64 = 4;

/// Between two looks at the status.
const PAUSE: Duration = Duration::from_millis(100);

/// Something is wrong, in `cdc` or in the test.
type Outcome = Result<(), String>;

pub struct Campaign {
    name: &'static str,
    seed: u64,
    schemas: Vec<String>,
    victims: Victims,
    reader: Reader,
    timeline: Timeline,
    /// Numbers of the groups' next commits.
    next: Vec<i64>,
    looks: u64,
    transactions: usize,
    /// How often each kind and fault was drawn.
    drawn: BTreeMap<String, u32>,
}

impl Campaign {
    /// Two servers of its own, the tables, and a `cdc` that has copied them.
    pub async fn set(name: &'static str, seed: u64) -> Self {
        let (source, target) = (
            Arc::new(own_cluster(Side::Source, "ddl-source")),
            Arc::new(own_cluster(Side::Target, "ddl-target")),
        );
        let mut pair = database_pair_on(&source, &target).await;
        let schemas: Vec<String> = (0..GROUPS).map(|group| format!("g{group}")).collect();
        let timeline = Timeline::start();
        let (of_source, of_target) = (pg(&pair.source_url).await, pg(&pair.target_url).await);
        of_source.batch_execute(JOURNAL).await.unwrap();
        for schema in &schemas {
            of_source.batch_execute(&source_sql(schema)).await.unwrap();
            of_target.batch_execute(&target_sql(schema)).await.unwrap();
            pair.config.push_str(&config(schema));
        }
        let victims = Victims::new(pair.clone(), source, target, timeline.clone());
        wait_until(
            "everything is copied for the first time",
            async || match read(
                &of_target,
                "SELECT min(state), max(state) FROM cdc.freshness",
            )
            .await
            {
                Ok(states) if states == ["streaming|streaming"] => Ok(()),
                seen => Err(format!("{seen:?}\n{}", victims.cdc.log())),
            },
        )
        .await;
        Self {
            name,
            seed,
            reader: Reader::start(pair.target_url, &schemas, timeline.clone()),
            next: vec![0; schemas.len()],
            schemas,
            victims,
            timeline,
            looks: 0,
            transactions: 0,
            drawn: BTreeMap::new(),
        }
    }

    fn pair(&self) -> &Pair {
        &self.victims.pair
    }

    /// The randomness of a group in a round; one more stands for what befalls `cdc`.
    fn rng(&self, round: u64, group: usize) -> Rng {
        let group = u64::try_from(group).unwrap();
        Rng::with_seed(self.seed ^ round.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (group << 56))
    }

    /// One round, in which each group but the last has drawn its kinds. The error tells everything
    /// that is needed to replay it.
    pub async fn round(&mut self, number: u64, kinds: &[Vec<Kind>]) -> Outcome {
        let started = Instant::now();
        self.timeline.clear();
        // Rounds are seconds apart: a copy of everything would wait for minutes because of those of
        // the rounds before.
        let target = pg(&self.pair().target_url).await;
        let forget = "UPDATE cdc.pipeline SET healings = 0";
        target
            .batch_execute(forget)
            .await
            .map_err(|error| error.to_string())?;
        self.victims.begin();
        let faults = draw(&mut self.rng(number, GROUPS));
        self.timeline
            .note(format!("-- round {number}: {kinds:?}, {faults:?}"));
        let names = kinds.iter().flatten().map(|kind| kind.name.to_owned());
        for drawn in names.chain(faults.iter().map(|(_, fault)| format!("{fault:?}"))) {
            *self.drawn.entry(drawn).or_default() += 1;
        }
        let mut writers = Vec::new();
        for (group, rows) in ROWS.into_iter().enumerate() {
            let kinds = kinds.get(group).map_or(&[][..], Vec::as_slice);
            let steps = plan(
                self.rng(number, group),
                &self.schemas[group],
                rows,
                kinds,
                number,
            );
            writers.push((self.writer(group).await, steps));
        }
        let writing = run(writers);
        let befallen = self.victims.befall(faults).await;
        let (writers, written) = writing.await;
        let commands = self.victims.finish_commands().await;
        let since = Instant::now();
        let (histories, outcome) = self
            .come_to_rest(number, writers, befallen.and(written).and(commands))
            .await;
        // What readers saw before tells more of a lookup that is wrong at the end.
        let outcome = match self.seen(&histories).await.and(outcome) {
            Ok(()) => self.agrees(number).await,
            failed => failed,
        };
        if let Err(why) = outcome {
            return Err(self.told(number, kinds, &why).await);
        }
        self.transactions += histories
            .iter()
            .map(|history| history.commits.len() - 1)
            .sum::<usize>();
        eprintln!(
            "{}: round {number} {kinds:?}: {:.1?}, at rest {:.1?} later",
            self.name,
            since.duration_since(started),
            since.elapsed()
        );
        Ok(())
    }

    async fn writer(&self, group: usize) -> Writer {
        let schema = &self.schemas[group];
        let source = pg(&self.pair().source_url).await;
        Writer {
            source_url: self.pair().source_url.clone(),
            target_url: self.pair().target_url.clone(),
            schema: schema.clone(),
            timeline: self.timeline.clone(),
            next: self.next[group],
            history: History {
                commits: vec![base(&source, schema).await],
            },
        }
    }

    /// Waits until everything is at rest, if nothing has gone wrong before, and that a change of
    /// each table arrives then: a read model that is equal may be out of the stream.
    async fn come_to_rest(
        &mut self,
        round: u64,
        mut writers: Vec<Writer>,
        mut outcome: Outcome,
    ) -> (Vec<History>, Outcome) {
        if outcome.is_ok() {
            self.timeline.note("-- everything is written");
            let ends = writers.into_iter().enumerate().map(|(group, writer)| {
                let steps = end(self.rng(round, 2 * GROUPS + group), &writer.schema);
                (writer, steps)
            });
            (writers, outcome) = run(ends.collect()).await;
        }
        for (next, writer) in self.next.iter_mut().zip(&writers) {
            *next = writer.next;
        }
        (
            writers.into_iter().map(|writer| writer.history).collect(),
            outcome,
        )
    }

    /// `cdc` says that all is well, and from time to time compares everything itself.
    async fn agrees(&self, round: u64) -> Outcome {
        self.healthy().await?;
        if round % COMPARED == COMPARED - 1 {
            self.succeeds(&["verify"]).await?;
        }
        Ok(())
    }

    /// Nobody saw anything that was not committed.
    async fn seen(&mut self, histories: &[History]) -> Outcome {
        let (samples, looks) = self.reader.take().await;
        self.looks += looks;
        let mut samples = samples.iter();
        for (schema, history) in self.schemas.iter().zip(histories) {
            for model in 0..MODELS.len() {
                history
                    .check(model, samples.next().unwrap())
                    .map_err(|why| format!("a reader saw in {schema}: {why}"))?;
            }
        }
        Ok(())
    }

    /// The status becomes healthy: a connection that was just cut is made again after a pause.
    async fn healthy(&self) -> Outcome {
        let started = Instant::now();
        loop {
            match self.succeeds(&["status"]).await {
                Err(why) if started.elapsed() > DEADLINE => return Err(why),
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn succeeds(&self, arguments: &[&str]) -> Outcome {
        let output = self.victims.output(arguments).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "cdc {arguments:?} ends with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// Everything of the round that is needed to replay it, by the seed or by hand.
    async fn told(&self, round: u64, kinds: &[Vec<Kind>], why: &str) -> String {
        let status = self.victims.output(&["status"]).await;
        let status = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        format!(
            "{}: CDC_TEST_SEED={} (CDC_TEST_ROUND={round} takes this round alone), round {round} {kinds:?}: {why}\n\
             === cdc status\n{}\n=== sessions of the source\n{}\n=== sessions of the target\n{}\n=== history of round {round}\n{}\n=== logs of round {round}\n{}",
            self.name,
            self.seed,
            status.unwrap_or_else(|error| error),
            sessions(&self.pair().source_url).await,
            sessions(&self.pair().target_url).await,
            self.timeline.text(),
            self.victims.log()
        )
    }

    /// Ends the campaign: `cdc` finds no difference and leaves when it is asked to.
    pub async fn finish(mut self, rounds: u64) -> Outcome {
        self.succeeds(&["verify"]).await?;
        self.reader.finish().await;
        let status = self.victims.cdc.stop(Signal::Term).await;
        if !status.success() {
            return Err(format!("cdc ended with {status}"));
        }
        let source = pg(&self.victims.pair.source_url).await;
        let version = value(&source, "SHOW server_version").await;
        eprintln!(
            "{}: CDC_TEST_SEED={}: {rounds} rounds on {version}, {} transactions, {} looks; drawn: {:?}",
            self.name, self.seed, self.transactions, self.looks, self.drawn
        );
        Ok(())
    }
}

/// Who does what at a server, and waits for whom.
async fn sessions(url: &str) -> String {
    let query = "SELECT pid, application_name, state, wait_event_type, wait_event, pg_blocking_pids(pid), now() - state_change, left(query, 200) \
                 FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid() ORDER BY pid";
    match connect(url).await {
        Ok(client) => read(&client, query).await.unwrap_or_default().join("\n"),
        Err(error) => error.to_string(),
    }
}

/// Lets each writer take its steps, beside the others; the first error is told.
fn run(writers: Vec<(Writer, Vec<Step>)>) -> impl Future<Output = (Vec<Writer>, Outcome)> {
    let running: Vec<_> = writers
        .into_iter()
        .map(|(writer, steps)| tokio::spawn(writer.run(steps)))
        .collect();
    async {
        let (mut writers, mut outcome) = (Vec::new(), Ok(()));
        for writer in running {
            let (writer, result) = writer.await.unwrap();
            writers.push(writer);
            outcome = outcome.and(result);
        }
        (writers, outcome)
    }
}
