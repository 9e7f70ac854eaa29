//! Rows of the environment: PG* variables alone and against the string, and service files.

use super::row::{Row, connected, mistake, refused, unreachable};

/// Files with their modes.
pub const FILES: &[(&str, u32, &str)] = &[
    (
        ".pg_service.conf",
        0o644,
        "# services\n\n[app]\nhost={S}\nport={P}\ndbname=app\nuser=ann\n\
         [twice]\nhost={S}\nport={P}\nuser=ann\nuser=nobody\ndbname=app\n\
         [commented] # of nobody\nhost={S}\nport={P}\ndbname=app\nuser=ann\n\
         [ spaced ]\nhost=nowhere.invalid\n\
         [blanks]\n  host={S}  \n\tport={P}\ndbname=a b\nuser=ann\n\
         [quoted]\nhost={S}\nport={P}\ndbname='app'\nuser=ann\n\
         [empty]\nhost={S}\nport={P}\nuser=\ndbname=app\n\
         [unknown]\nhost={S}\nhots=x\n\
         [nested]\nhost={S}\nservice=app\n\
         [broken]\nhost={S}\nnonsense\n\
         [spacious]\nhost = {S}\n\
         [old]\nhost={S}\nrequiressl=1\n\
         [again]\nhost={S}\nport={P}\ndbname=app\nuser=ann\n[again]\nuser=nobody\n",
    ),
    (
        "pg_service.conf",
        0o644,
        "[system]\nhost={S}\nport={P}\ndbname=app\nuser=ann\n[app]\nhost=nowhere.invalid\n",
    ),
    (
        "services",
        0o644,
        "[other]\nhost={S}\nport={P}\ndbname=app\nuser=ann\napplication_name=from service",
    ),
];

pub fn rows() -> Vec<Row> {
    [variables(), services()].concat()
}

/// All of ann's place in variables.
fn given(row: Row) -> Row {
    row.with("PGHOST", "{S}")
        .with("PGPORT", "{P}")
        .with("PGDATABASE", "app")
        .with("PGUSER", "ann")
}

fn variables() -> Vec<Row> {
    vec![
        given(connected("")),
        given(connected("postgresql://")),
        given(connected("postgres:///")),
        given(connected("postgresql:///app")),
        given(connected("user=postgres")),
        given(connected("postgresql://postgres@")),
        given(connected("dbname='a b'")),
        given(connected("application_name=x")),
        given(unreachable("port={N}")),
        given(unreachable("host=localhost port={N}")),
        given(unreachable("postgresql://localhost:{N}")),
        given(connected("host=localhost")),
        given(connected("postgresql://localhost")),
        given(refused("dbname=nowhere")),
        connected("{k}")
            .with("PGHOST", "nowhere.invalid")
            .with("PGPORT", "x")
            .with("PGUSER", "nobody")
            .with("PGDATABASE", "x"),
        connected("port={P} dbname=app user=ann").with("PGHOST", "/nowhere,{S}"),
        connected("dbname=app user=ann")
            .with("PGHOST", "/nowhere,{S}")
            .with("PGPORT", "{N},{P}"),
        mistake("dbname=app user=ann")
            .with("PGHOST", "{S}")
            .with("PGPORT", "{N},{P}"),
        connected("host={S} dbname=app user=ann").with("PGPORT", " {P} "),
        mistake("host={S} dbname=app user=ann").with("PGPORT", "x"),
        connected("port={P} dbname=app user=ann").with("PGHOSTADDR", "127.0.0.1"),
        connected("{t}").with("PGHOSTADDR", "127.0.0.1"),
        mistake("host={S},{R} port={P} dbname=app user=ann").with("PGHOSTADDR", "127.0.0.1"),
        connected("host={S} port={P} user=postgres").with("PGDATABASE", ""),
        connected("host={S} port={P} dbname=app").with("PGUSER", ""),
        unreachable("host={S} port='' dbname=app user=ann").with("PGPORT", "{P}"),
        connected("{k}").with("PGSSLMODE", "disable"),
        connected("{t}").with("PGSSLMODE", "require").of_tls(),
        connected("{t} sslmode=disable").with("PGSSLMODE", "require"),
        connected("{t} sslmode=prefer").with("PGSSLMODE", "nonsense"),
        mistake("{t}").with("PGSSLMODE", "nonsense"),
        mistake("{k}").with("PGSSLMODE", ""),
        connected("{t}").with("PGREQUIRESSL", "1").of_tls(),
        connected("{t}")
            .with("PGREQUIRESSL", "1")
            .with("PGSSLMODE", "disable"),
        connected("{t}").with("PGREQUIRESSL", "0").of_tls(),
    ]
}

fn services() -> Vec<Row> {
    vec![
        connected("service=app"),
        connected("postgresql://?service=app"),
        connected("").with("PGSERVICE", "app"),
        connected("user=postgres").with("PGSERVICE", "app"),
        connected("service=app").with("PGSERVICE", "nowhere"),
        connected("service=app user=postgres"),
        connected("user=postgres service=app dbname='a b'"),
        connected("postgresql://postgres@/?service=app"),
        connected("service=app")
            .with("PGHOST", "nowhere.invalid")
            .with("PGUSER", "nobody")
            .with("PGPORT", "x"),
        connected("service=twice"),
        connected("service=commented"),
        connected("service=blanks"),
        connected("service=empty"),
        connected("service=again"),
        connected("service=system"),
        connected("service=other").with("PGSERVICEFILE", "{D}/services"),
        connected("service=system").with("PGSERVICEFILE", "{D}/services"),
        refused("service=quoted"),
        mistake("service=nowhere"),
        mistake("service=' spaced'"),
        mistake("service=''"),
        mistake("{k}").with("PGSERVICE", ""),
        mistake("{k}").with("PGSERVICE", "nowhere"),
        mistake("service=unknown"),
        mistake("service=nested"),
        mistake("service=broken"),
        mistake("service=spacious"),
        mistake("service=old"),
        mistake("service=app").with("PGSERVICEFILE", "/nowhere"),
        mistake("service=system").with("PGSERVICEFILE", "/nowhere"),
        mistake("service=system").with("PGSYSCONFDIR", "/nowhere"),
    ]
}
