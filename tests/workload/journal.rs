//! The journal: which statements each session ran, so that a failure can be told as SQL for psql.
//!
//! The oracle knows the order of the commits and their transaction ids; the journal knows what was
//! run under them. A transaction whose connection broke at its end has no id here: nobody told
//! whether it was committed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Mutex;

/// Transactions that are kept; older ones are forgotten.
const KEPT: usize = 50_000;
/// Statements that are shown of the commits before a failure.
const SHOWN_STATEMENTS: usize = 150;

/// A transaction that was committed.
#[derive(Debug)]
pub struct Entry {
    pub session: u32,
    pub xid: String,
    pub statements: Vec<String>,
}

/// What the sessions committed, in the order in which they were told so.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<Entry>>);

impl Journal {
    pub fn add(&self, entry: Entry) {
        let mut entries = self.0.lock().unwrap();
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Where to begin among these transaction ids, so that not too many statements are shown.
    pub fn first_shown(&self, xids: &[&str]) -> usize {
        let entries = self.0.lock().unwrap();
        let mut statements = 0;
        let newest_first = xids.iter().enumerate().rev();
        let fits = newest_first.take_while(|(_, xid)| {
            let entry = entries.iter().find(|entry| entry.xid == **xid);
            statements += entry.map_or(1, |entry| entry.statements.len());
            statements <= SHOWN_STATEMENTS
        });
        fits.last().map_or(xids.len(), |(at, _)| at)
    }

    /// The transaction of this id, which was the commit of this number.
    pub fn write_sql(&self, number: usize, xid: &str, sql: &mut String) {
        let entries = self.0.lock().unwrap();
        let Some(entry) = entries.iter().find(|entry| entry.xid == xid) else {
            let _ = writeln!(
                sql,
                "\n-- commit {number}, xid {xid}: what was run is not known, its connection broke"
            );
            return;
        };
        let _ = writeln!(
            sql,
            "\n-- commit {number}, xid {xid}, session {}\nBEGIN;",
            entry.session
        );
        for statement in &entry.statements {
            let _ = writeln!(sql, "{statement};");
        }
        sql.push_str("COMMIT;\n");
    }
}

/// A text for SQL.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[test]
fn journal_shows_the_newest_transactions_that_fit() {
    let journal = Journal::default();
    for xid in 1..=5 {
        journal.add(Entry {
            session: 0,
            xid: xid.to_string(),
            statements: vec!["DELETE FROM labels".to_owned(); 60],
        });
    }
    assert_eq!(journal.first_shown(&["1", "2", "3", "4"]), 2);
    assert_eq!(journal.first_shown(&["9", "8"]), 0);
    assert_eq!(journal.first_shown(&[]), 0);
    let mut sql = String::new();
    journal.write_sql(7, "3", &mut sql);
    journal.write_sql(8, "9", &mut sql);
    assert!(sql.starts_with("\n-- commit 7, xid 3, session 0\nBEGIN;\nDELETE FROM labels;\n"));
    assert!(sql.ends_with(
        "COMMIT;\n\n-- commit 8, xid 9: what was run is not known, its connection broke\n"
    ));
}
