//! Looks at every lookup all the time, together with what the bookkeeping says of it in the same
//! snapshot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use super::super::sessions::connect;
use super::super::support::DEADLINE;
use super::history::{Content, Sample, parse_lsn};
use super::tables::MODELS;
use super::timeline::Timeline;
use super::writer::read;

const PAUSE: Duration = Duration::from_millis(4);

/// One lookup, as the reader asks for it.
struct Lookup {
    name: String,
    columns: &'static str,
}

/// Looks until it is told to stop.
pub struct Reader {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    handle: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What was seen of each lookup, group by group, without repetitions.
    samples: Vec<Vec<Sample>>,
    looks: u64,
}

impl Reader {
    pub fn start(url: String, schemas: &[String], timeline: Timeline) -> Self {
        let lookups: Vec<Lookup> = schemas
            .iter()
            .flat_map(|schema| {
                MODELS.iter().map(move |model| Lookup {
                    name: format!("{schema}.{}", model.lookup),
                    columns: model.columns,
                })
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen {
            samples: vec![Vec::new(); lookups.len()],
            looks: 0,
        }));
        let eye = Eye {
            url,
            question: question(&lookups),
            lookups,
            timeline,
            stop: Arc::clone(&stop),
            seen: Arc::clone(&seen),
        };
        Self {
            stop,
            seen,
            handle: tokio::spawn(eye.run()),
        }
    }

    /// What was seen of each lookup since it was asked last, up to a look that begins after this;
    /// the newest look stays, as the first of the next answer.
    pub async fn take(&self) -> (Vec<Vec<Sample>>, u64) {
        let (started, asked) = (Instant::now(), self.seen.lock().unwrap().looks);
        while self.seen.lock().unwrap().looks < asked + 2 {
            assert!(started.elapsed() < DEADLINE, "the reader cannot look");
            tokio::time::sleep(PAUSE).await;
        }
        let mut seen = self.seen.lock().unwrap();
        let newest = seen
            .samples
            .iter()
            .map(|samples| samples.last().cloned().into_iter().collect())
            .collect();
        let samples = std::mem::replace(&mut seen.samples, newest);
        (samples, std::mem::take(&mut seen.looks))
    }

    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.await.unwrap();
    }
}

/// A statement for all lookups: has it changed since, is it in step, what is the checkpoint. The
/// tables are locked before the snapshot is taken: one that is altered and rewritten in between
/// would look empty.
fn question(lookups: &[Lookup]) -> String {
    let names: Vec<&str> = lookups.iter().map(|lookup| lookup.name.as_str()).collect();
    let each: Vec<String> = lookups
        .iter()
        .map(|Lookup { name, columns }| {
            format!(
                "(SELECT count(*) || ':' || coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0) FROM {name}), \
                 (SELECT state NOT IN ('new', 'suspended') FROM cdc.freshness WHERE read_model = '{name}')"
            )
        })
        .collect();
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {} IN ACCESS SHARE MODE; \
         SELECT (SELECT max(as_of_lsn) FROM cdc.freshness), {}",
        names.join(", "),
        each.join(", ")
    )
}

struct Eye {
    url: String,
    question: String,
    lookups: Vec<Lookup>,
    timeline: Timeline,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Eye {
    async fn run(self) {
        let mut marks = vec![String::new(); self.lookups.len()];
        while !self.stop.load(Ordering::Relaxed) {
            // The target may be away for a while.
            if let Ok(client) = connect(&self.url).await {
                while !self.stop.load(Ordering::Relaxed)
                    && self.look(&client, &mut marks).await.is_ok()
                {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self, client: &Client, marks: &mut [String]) -> Result<(), Error> {
        let answer = read(client, &self.question)
            .await?
            .pop()
            .unwrap_or_default();
        let mut fields = answer.split('|');
        let lsn = parse_lsn(fields.next().unwrap());
        for (at, lookup) in self.lookups.iter().enumerate() {
            let (mark, in_step) = (fields.next().unwrap(), fields.next().unwrap() == "t");
            let content = if marks[at] == mark {
                None
            } else {
                let query = format!("SELECT {} FROM {}", lookup.columns, lookup.name);
                Some(Content::new(read(client, &query).await?))
            };
            mark.clone_into(&mut marks[at]);
            self.keep(at, content, in_step, lsn);
        }
        client.batch_execute("COMMIT").await?;
        self.seen.lock().unwrap().looks += 1;
        Ok(())
    }

    /// Keeps what differs from the look before; without a content it is the same.
    fn keep(&self, at: usize, content: Option<Arc<Content>>, in_step: bool, lsn: u64) {
        let samples = &mut self.seen.lock().unwrap().samples[at];
        let last = samples.last();
        let content = match (content, last) {
            (Some(content), _) => content,
            (None, Some(last)) => Arc::clone(&last.content),
            (None, None) => return,
        };
        let same = last.is_some_and(|last| {
            last.content.hash == content.hash && last.in_step == in_step && last.lsn == lsn
        });
        if !same {
            samples.push(Sample {
                at: self.timeline.now(),
                content,
                in_step,
                lsn,
            });
        }
    }
}
