//! What `cdc`'s own layer ends in, in process: the string is read with the row's environment, and
//! both sides connect.

use std::collections::BTreeMap;
use std::path::Path;

use cdc::config::read_conninfo;
use cdc::connect::{Connection, Side, Wanted};
use cdc::conninfo::Conninfo;
use cdc::error::{Class, Error};

use super::row::{End, Kind, Row};
use super::theirs::QUESTION;
use crate::support::value;

/// What the source and the target end in, of each row.
pub fn all(rows: &[Row], home: &Path) -> Vec<(End, End)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut ends = Vec::new();
        for row in rows {
            ends.push(both(row, home).await);
        }
        ends
    })
}

async fn both(row: &Row, home: &Path) -> (End, End) {
    let home = home.display().to_string();
    let mut variables: BTreeMap<String, String> = row.variables.iter().cloned().collect();
    for name in ["HOME", "PGSYSCONFDIR"] {
        variables
            .entry(name.to_owned())
            .or_insert_with(|| home.clone());
    }
    let conninfo = match read_conninfo(&row.text, &variables) {
        Ok(conninfo) => conninfo,
        Err(error) => {
            assert_eq!(error.class(), Class::Configuration, "{row}: {error:?}");
            let end = end(Kind::Mistake, &error);
            return (end.clone(), end);
        }
    };
    (
        connect(Side::Source, &conninfo).await,
        connect(Side::Target, &conninfo).await,
    )
}

async fn connect(side: Side, conninfo: &Conninfo) -> End {
    // The name that psql gives itself.
    let opened = match side {
        Side::Source => Connection::open(side, conninfo, "psql", Wanted::Any).await,
        Side::Target => cdc::target::connect::connect(conninfo, "psql").await,
    };
    match opened {
        Ok(connection) => End {
            kind: Kind::Connected,
            text: value(&connection, QUESTION).await,
        },
        Err(error) => end(kind(&error), &error),
    }
}

fn kind(error: &Error) -> Kind {
    let text = error.to_string();
    match error.class() {
        _ if error.sqlstate().is_some() => Kind::Refused,
        Class::Configuration if text.contains("password missing") => Kind::NoPassword,
        Class::Configuration => Kind::Mistake,
        _ if text.contains("the server does not accept writes")
            || text.contains("the server accepts writes")
            || text.contains("a standby") =>
        {
            Kind::Unsuitable
        }
        _ => Kind::Unreachable,
    }
}

/// Nothing but their names may differ in the errors of the two sides.
fn end(kind: Kind, error: &Error) -> End {
    let text = match kind {
        // The server's words are at its end.
        Kind::Refused => error.to_string(),
        _ => format!("{error:?}"),
    };
    let text = text
        .replace("the target", "the source")
        .replace("CDC_TARGET_", "CDC_SOURCE_");
    End { kind, text }
}
