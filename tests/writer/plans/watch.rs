//! What a session of the target has done: the plans that the server carried out, row for row, and
//! its time.
//!
//! The server has a module of its own write them down (`auto_explain`), nested statements included.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc::cluster::{Cluster, Options};
use serde_json::Value;

use crate::support::{Side, pg};

/// A server without statistics: nothing is ever analysed there unless somebody does so by hand.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = [
            ("autovacuum", "off"),
            ("session_preload_libraries", "auto_explain"),
            ("auto_explain.log_analyze", "on"),
            ("auto_explain.log_timing", "off"),
            ("auto_explain.log_nested_statements", "on"),
            ("auto_explain.log_format", "json"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Cluster::start(&Options {
            name: "plans".to_owned(),
            pg_bin: Side::Target.programs(),
            settings: settings.to_vec(),
            ..Options::default()
        })
        .unwrap()
    })
}

/// An empty database there.
pub async fn database() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("plans_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let client = pg(&server().url("postgres")).await;
    client
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await
        .unwrap();
    server().url(&name)
}

/// A session that is looked at.
#[derive(Debug)]
pub struct Watch {
    pid: i32,
    from: u64,
    time: f64,
}

/// What it has done.
#[derive(Debug)]
pub struct Work {
    /// Statements with their plans.
    pub plans: Vec<Plan>,
    /// Time of a processor, in nanoseconds.
    pub time: f64,
}

/// A statement that was carried out.
#[derive(Debug)]
pub struct Plan {
    pub statement: String,
    pub root: Value,
}

impl Watch {
    /// Looks at what this session does from here on.
    pub async fn begin(conn: &cdc::connect::Connection) -> Self {
        let begin = "SET auto_explain.log_min_duration = 0";
        conn.batch_execute(begin).await.unwrap();
        let row = conn
            .query_one("SELECT pg_backend_pid()", &[])
            .await
            .unwrap();
        let pid: i32 = row.get(0);
        Self {
            pid,
            from: server().log_file().metadata().unwrap().len(),
            time: time_of(pid),
        }
    }

    /// What it has done since.
    pub async fn end(self, conn: &cdc::connect::Connection) -> Work {
        let time = time_of(self.pid) - self.time;
        let end = "SET auto_explain.log_min_duration = -1";
        conn.batch_execute(end).await.unwrap();
        let mut file = File::open(server().log_file()).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut log = Vec::new();
        file.read_to_end(&mut log).unwrap();
        let log = String::from_utf8_lossy(&log);
        Work {
            plans: plans(&log, self.pid),
            time,
        }
    }
}

/// Nanoseconds that the process has had of a processor.
fn time_of(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The plans that this process has logged. A message's further lines begin with a tab.
fn plans(log: &str, pid: i32) -> Vec<Plan> {
    let ours = format!("[{pid}]");
    let mut plans = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let mut text = String::new();
        while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
            text.push_str(more);
        }
        if line.contains(&ours) && line.ends_with("plan:") {
            let mut plan: Value = serde_json::from_str(&text).unwrap();
            plans.push(Plan {
                statement: plan["Query Text"].as_str().unwrap().to_owned(),
                root: plan["Plan"].take(),
            });
        }
    }
    plans
}

impl Plan {
    /// Every node of the plan.
    pub fn nodes(&self) -> Vec<&Value> {
        let mut nodes = vec![&self.root];
        let mut at = 0;
        while let Some(node) = nodes.get(at) {
            nodes.extend(node["Plans"].as_array().into_iter().flatten());
            at += 1;
        }
        nodes
    }

    /// Rows that its nodes have handled.
    pub fn rows(&self) -> f64 {
        self.nodes().into_iter().map(rows_of).sum()
    }
}

impl Work {
    /// Statements in which a table is read from end to end again and again, with their plans.
    pub fn repeated(&self) -> Vec<String> {
        let reads =
            |node: &&Value| is_read(node) && node["Actual Loops"].as_f64().unwrap() > MOST_READS;
        let plans = self
            .plans
            .iter()
            .filter(|plan| plan.nodes().iter().any(reads));
        plans
            .map(|plan| format!("{}\n{:#}", plan.statement, plan.root))
            .collect()
    }

    /// Rows that all nodes of all plans have handled.
    pub fn rows(&self) -> f64 {
        self.plans.iter().map(Plan::rows).sum()
    }
}

/// How often one statement may read a table.
const MOST_READS: f64 = 3.0;

/// Whether this is a table that is read from end to end, not looked up in.
fn is_read(node: &&Value) -> bool {
    let has = |name: &str| node.get(name).is_some();
    match node["Node Type"].as_str().unwrap() {
        "Seq Scan" | "Materialize" | "CTE Scan" => true,
        "Index Scan" | "Index Only Scan" => !has("Index Cond"),
        "Tid Scan" => node["TID Cond"].as_str().unwrap().contains("ANY"),
        _ => false,
    }
}

fn rows_of(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let each = number("Actual Rows")
        + number("Rows Removed by Filter")
        + number("Rows Removed by Join Filter")
        + number("Rows Removed by Index Recheck");
    each * number("Actual Loops")
}
