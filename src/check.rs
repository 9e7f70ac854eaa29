//! `check`: facts become findings, each with its reason and the SQL or setting that corrects it.
//!
//! In: the settings and what the catalogs of both sides said, as far as each could be asked. Out:
//! [`Finding`]s, worst first. An error is what keeps `cdc run` from working, or the application
//! from writing; a warning is what will hurt one day; a note is what is good to know.

mod failover;
mod publication;
mod server;
mod source;
mod target;
mod temp_files;
#[cfg(test)]
mod tests;
mod types;
mod unfollowed;

pub(crate) use server::{SQL_ASCII_HINT, SQL_ASCII_SOURCE};
pub(crate) use temp_files::{TEMP_FILE_LIMIT, TEMP_FILE_LIMIT_HINT};

use std::fmt::Display;

use serde::Serialize;

use crate::error::Error;
use crate::facts::{
    LookupTable, Publication, Slot, SourceServer, SourceTable, TargetServer, TempFiles,
    WithoutIdentity, roots,
};
use crate::ownership::Ownership;
use crate::read_model::lookup_obstacles::LookupWriter;
use crate::settings::Settings;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `cdc run` cannot work, or the application's writes fail.
    Error,
    /// It works, and will hurt one day.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: `source`, `slot "cdc"`, `table "public.labels"`.
    pub subject: String,
    /// What was found; lower case, no full stop.
    pub message: String,
    /// Why it matters, as whole sentences.
    pub detail: Option<String>,
    /// What corrects it: SQL, or a sentence.
    pub fix: Option<String>,
}

impl Finding {
    fn detail(&mut self, detail: impl Into<String>) -> &mut Self {
        self.detail = Some(detail.into());
        self
    }

    fn fix(&mut self, fix: impl Into<String>) -> &mut Self {
        self.fix = Some(fix.into());
        self
    }
}

/// What the source said.
#[derive(Debug)]
pub(crate) struct SourceSide {
    /// The server and the role.
    pub server: SourceServer,
    /// The slot, if it is there.
    pub slot: Option<Slot>,
    /// The publication, if it is there.
    pub publication: Option<Publication>,
    /// Tables of the publication whose UPDATE and DELETE fail, followed or not.
    pub without_identity: Vec<WithoutIdentity>,
    /// System identifier of its cluster, and its database.
    pub system: (String, String),
    /// Comments of all publications of the database.
    pub comments: Vec<String>,
    /// One for each read model, in the order of the settings.
    pub models: Vec<SourceModel>,
}

/// What the source said about one read model's table.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceModel {
    /// The table, if it is there.
    pub table: Option<SourceTable>,
    /// Keys that more than one live row has; `None` if it was not counted.
    pub duplicates: Option<i64>,
    /// Rows that are not soft-deleted and have a NULL in their key; `None` if they were not
    /// counted.
    pub without_key: Option<i64>,
    /// All publications that publish the table, of any creator.
    pub publications: Vec<Publication>,
}

/// What the target said.
#[derive(Debug, Clone)]
pub(crate) struct TargetSide {
    /// The server and the role.
    pub server: TargetServer,
    /// Which pipeline this is, and what its bookkeeping knows.
    pub ownership: Ownership,
    /// One for each read model, in the order of the settings; `None` where there is no such table.
    pub lookups: Vec<Option<LookupTable>>,
    /// Room for temporary files beside the largest lookup; `None` if there is no limit, or no
    /// lookup.
    pub temp_files: Option<TempFiles>,
}

/// Everything that was found, worst first; a side that could not be asked is left out.
pub(crate) fn check(
    settings: &Settings,
    source: Option<&SourceSide>,
    target: Option<&TargetSide>,
) -> Vec<Finding> {
    let mut findings = Findings::default();
    server::connection(&mut findings, "source", &settings.source.conninfo);
    server::connection(&mut findings, "target", &settings.target.conninfo);
    if let Some(side) = source {
        server::source(&mut findings, settings, side);
        publication::owned(
            &mut findings,
            settings,
            side,
            target.map(|side| &side.ownership),
        );
        unfollowed::tables(&mut findings, side);
    }
    if let Some(side) = target {
        server::target(&mut findings, settings, &side.server);
        temp_files::limit(&mut findings, side.temp_files.as_ref(), &side.server.user);
    }
    if let (Some(source), Some(target)) = (source, target) {
        let (system, database) = &source.system;
        let own = target
            .ownership
            .pipeline
            .own_master((system, database), &settings.read_models);
        if let Some(error) = own {
            findings.add_error("read models", &error);
        }
        server::encodings(
            &mut findings,
            &source.server.encoding,
            &target.server.encoding,
        );
    }
    for (index, model) in settings.read_models.iter().enumerate() {
        let facts = source.and_then(|side| side.models.get(index));
        if let (Some(side), Some(facts)) = (source, facts) {
            let roots = roots(settings, side.publication.as_ref());
            source::model(&mut findings, model, (facts, &roots), &side.server);
        }
        let table = facts.and_then(|facts| facts.table.as_ref());
        if let Some(side) = target
            && let Some(lookup) = side.lookups.get(index)
        {
            let writer = LookupWriter {
                schema: &settings.target.schema,
                role: &side.server.user,
            };
            target::model(&mut findings, model, lookup.as_ref(), table, writer);
        }
    }
    let mut findings = findings.all();
    findings.sort_by_key(|finding| finding.severity);
    findings.dedup();
    findings
}

/// Findings as they are gathered; the last one may still get its detail and fix.
#[derive(Debug, Default)]
struct Findings {
    done: Vec<Finding>,
    last: Option<Finding>,
}

impl Findings {
    fn error(&mut self, subject: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, subject, message)
    }

    fn warning(&mut self, subject: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, subject, message)
    }

    fn note(&mut self, subject: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Note, subject, message)
    }

    /// An error of another module, with its detail and hint.
    fn add_error(&mut self, subject: impl Into<String>, error: &Error) -> &mut Finding {
        let finding = self.error(subject, error.to_string());
        finding.detail = error.detail().map(str::to_owned);
        finding.fix = error.hint().map(str::to_owned);
        finding
    }

    fn add(
        &mut self,
        severity: Severity,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.done.extend(self.last.take());
        self.last.insert(Finding {
            severity,
            subject: subject.into(),
            message: message.into(),
            detail: None,
            fix: None,
        })
    }

    fn all(mut self) -> Vec<Finding> {
        self.done.extend(self.last);
        self.done
    }
}

/// `1 row`, `2 rows`.
fn counted<T: Display + PartialEq + From<u8>>(count: T, word: &str) -> String {
    let plural = if count == T::from(1) { "" } else { "s" };
    format!("{count} {word}{plural}")
}

/// The findings as text for a terminal: one block each, and a last line that counts them.
pub(crate) fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!(
            "{}: {}: {}\n",
            finding.severity.word(),
            finding.subject,
            finding.message
        ));
        if let Some(detail) = &finding.detail {
            text.push_str(&format!("detail: {detail}\n"));
        }
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("fix: {fix}\n"));
        }
        text.push('\n');
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings, notes) = (
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
    );
    let verdict = match (errors, warnings) {
        (0, 0) => "Everything is ready.",
        (0, _) => "Ready, with warnings.",
        _ => "Not ready.",
    };
    text.push_str(&format!(
        "{verdict} {}, {}, {}.\n",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(notes, "note")
    ));
    text
}

/// Whether `cdc run` would work.
pub(crate) fn is_ready(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.severity != Severity::Error)
}
