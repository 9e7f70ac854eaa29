//! Connection strings as libpq takes them: each row of a table is given to `psql`, which is libpq,
//! and to `cdc`'s own layer, on both sides, and what they end in is compared.
//!
//! A row says which of the two it is: alike, or stricter for a reason that it gives. Nothing may be
//! laxer, and the target may differ from the source in target_session_attrs alone.
//!
//! ```text
//! forms, hosts, values, environment, secrets, passwords, tls, demands   the rows
//! row    what a row can say          place   servers, roles, databases and files
//! theirs what psql ends in           ours    what cdc ends in
//! ```

mod demands;
mod environment;
mod forms;
mod hosts;
mod ours;
mod passwords;
mod place;
mod row;
mod secrets;
mod theirs;
mod tls;
mod values;

use std::collections::BTreeMap;

use self::row::{End, Row, Verdict};
use self::theirs::Psql;
use crate::support::missing;

/// What one row of the table has come to, as a complaint; `None` if it is as it says.
fn complaint(row: &Row, theirs: &End, source: &End, target: &End) -> Option<String> {
    let what = judge(row, theirs, source, target).err()?;
    Some(format!(
        "{row}\n    {what}\n    libpq:  {theirs}\n    source: {source}\n    target: {target}\n"
    ))
}

fn judge(row: &Row, theirs: &End, source: &End, target: &End) -> Result<(), String> {
    match &row.target_says {
        Some(says) if !target.says(says) => {
            return Err(format!("the target does not say {says:?}"));
        }
        None if source != target => return Err("the target differs from the source".to_owned()),
        _ => {}
    }
    match &row.verdict {
        Verdict::Alike(kind) => {
            if !theirs.is(*kind) {
                return Err(format!("libpq is not {kind:?}"));
            }
            if theirs.same_as(source) {
                Ok(())
            } else if source.goes_further_than(theirs) {
                Err("cdc is laxer".to_owned())
            } else {
                Err("cdc is stricter, or ends elsewhere".to_owned())
            }
        }
        Verdict::Stated { theirs: kind, .. } => {
            if theirs.is(*kind) && source.is(row::Kind::Connected) && !theirs.same_as(source) {
                Ok(())
            } else {
                Err("they do not differ so".to_owned())
            }
        }
        Verdict::Stricter { says, .. } => {
            if theirs.is(row::Kind::Mistake) {
                Err("libpq refuses it too: the row is alike".to_owned())
            } else if !source.is(row::Kind::Connected) && source.says(says) {
                Ok(())
            } else {
                Err(format!("cdc does not refuse it with {says:?}"))
            }
        }
    }
}

/// Rows, the newest libpq that is there alone.
fn rows(psql: &Psql) -> Vec<Row> {
    let all = [
        forms::rows(),
        hosts::rows(),
        values::rows(),
        environment::rows(),
        secrets::rows(),
        passwords::rows(),
        tls::rows(),
        demands::rows(),
    ]
    .concat();
    assert!(all.len() >= 180, "{} rows", all.len());
    let (run, newer): (Vec<Row>, Vec<Row>) = all
        .into_iter()
        .partition(|row| row.since <= psql.libpq_version);
    if !newer.is_empty() {
        missing(&format!(
            "{} connection strings need a libpq newer than {}: make postgres-18 fetches it.",
            newer.len(),
            psql.libpq_version
        ));
    }
    run
}

#[test]
fn connection_strings_end_as_with_libpq() {
    let Some(psql) = Psql::find() else {
        missing("connection strings against libpq need the program psql.");
        return;
    };
    let place = place::Place::make();
    if !place.has_tls {
        missing("connection strings with TLS need the program openssl.");
    }
    if !place.has_v6 {
        missing("connection strings with ::1 need IPv6 on the loopback device.");
    }
    let rows: Vec<Row> = rows(&psql)
        .into_iter()
        .filter(|row| place.can_run(row))
        .map(|row| place.filled(row))
        .collect();
    let home = place.home();
    // psql waits while cdc computes.
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| psql.all(&rows, home));
        let ours = ours::all(&rows, home);
        (theirs.join().unwrap(), ours)
    });
    let mut complaints = Vec::new();
    let mut counts = BTreeMap::new();
    for ((row, theirs), (source, target)) in rows.iter().zip(&theirs).zip(&ours) {
        complaints.extend(complaint(row, theirs, source, target));
        *counts.entry(row.verdict.name()).or_insert(0) += 1;
    }
    println!("{counts:?} with libpq {}", psql.libpq_version);
    assert!(
        complaints.is_empty(),
        "{} of {} rows are not as they say:\n{}",
        complaints.len(),
        rows.len(),
        complaints.join("\n")
    );
}
