//! What is tried: connection strings of either side, and what `cdc run` does and says.

/// What becomes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It ends with exit code 2.
    Stops,
    /// It tries again until it is asked to stop.
    Waits,
}
use Ends::{Stops, Waits};

/// A connection string of either side, what becomes of the process, and parts of the message and of
/// the hint. `{S}` and `{P}` are directory and port of a server, `{R}` and `{Q}` of its standby;
/// `{http}` and so on are ports where something else listens.
pub type Case = (&'static str, Ends, &'static str, &'static str);

pub const STRINGS: [Case; 14] = [
    (
        "jdbc:postgresql://127.0.0.1:{P}/open",
        Stops,
        "a JDBC URL is no connection string",
        "Leave out jdbc:",
    ),
    (
        "postgresql+asyncpg://ann:hunter2@127.0.0.1:{P}/open",
        Stops,
        "the driver of another tool",
        "Begin it with postgresql://",
    ),
    (
        "postgres+psycopg2://ann:hunter2@127.0.0.1:{P}/open",
        Stops,
        "the driver of another tool",
        "Begin it with postgresql://",
    ),
    (
        "\"postgresql://ann:hunter2@127.0.0.1:{P}/open\"",
        Stops,
        "begins with a quote",
        "Remove the quotes",
    ),
    (
        "'host={S} port={P} password=hunter2'",
        Stops,
        "begins with a quote",
        "Remove the quotes",
    ),
    (
        "\u{feff}postgresql://ann:hunter2@127.0.0.1:{P}/open",
        Stops,
        "a byte order mark",
        "Save the file",
    ),
    (
        " postgresql://ann:hunter2@127.0.0.1:{P}/open",
        Stops,
        "a blank before it",
        "Remove it",
    ),
    (
        "postgresql://ann:hun ter2@127.0.0.1:{P}/open",
        Stops,
        "a URL has no blanks",
        "percent-encode",
    ),
    (
        "mysql://ann:hunter2@127.0.0.1:{P}/open",
        Stops,
        "a mysql:// URL is none of PostgreSQL's",
        "Source and target are PostgreSQL databases",
    ),
    (
        "postgresql://ann:hunter2/x@127.0.0.1:{P}/open",
        Stops,
        "no number from 1 to 65535",
        "percent-encode",
    ),
    (
        "host={S} port={P} dbname=open sslmode=''",
        Stops,
        "sslmode of the connection string must be one of",
        "",
    ),
    (
        "host={S} port={P} dbname=open connect_timeout=soon",
        Stops,
        "must be a whole number",
        "Leave it out",
    ),
    (
        "host={S} port={P} dbname=open hots=x",
        Stops,
        "unrecognized connection keyword \\\"hots\\\"",
        "Did you mean",
    ),
    (
        "service=nowhere",
        Stops,
        "cannot find the definition of service",
        "Define it in",
    ),
];

pub const SERVERS: [Case; 20] = [
    (
        "postgresql://postgres@127.0.0.1:1/open",
        Waits,
        "127.0.0.1:1: Connection refused",
        "Nobody listens there: check host and port",
    ),
    (
        "postgresql://postgres@nowhere.invalid/open",
        Waits,
        "could not find the address of host \\\"nowhere.invalid\\\"",
        "Check the host's name in the SIDE's URL",
    ),
    (
        "host=/nowhere user=postgres dbname=open",
        Waits,
        "socket \\\"/nowhere/.s.PGSQL.5432\\\": No such file",
        "There is no such file: check the directory",
    ),
    (
        "host=127.0.0.1 port={P} user=postgres dbname=nowhere",
        Stops,
        "no pg_hba.conf entry for host",
        "Check the role's name and the server's pg_hba.conf",
    ),
    (
        "host={S} port={P} user=postgres dbname=nowhere",
        Stops,
        "database \\\"nowhere\\\" does not exist",
        "Check the database's name in the SIDE's URL",
    ),
    (
        "host={S} port={P} user=nobody dbname=open",
        Stops,
        "role \\\"nobody\\\" does not exist",
        "Check the role's name",
    ),
    (
        "host=127.0.0.1 port={P} user=ann password=hunter3 dbname=scram",
        Stops,
        "password authentication failed for user \\\"ann\\\"",
        "Check the password in the SIDE's URL, CDC_SIDE_PASSWORD",
    ),
    (
        "host=127.0.0.1 port={P} user=ann dbname=scram",
        Stops,
        "password missing",
        "Check the password in the SIDE's URL, CDC_SIDE_PASSWORD",
    ),
    (
        "host=127.0.0.1 port={P} user=postgres dbname=open sslmode=require",
        Stops,
        "the server does not support TLS, but sslmode demands it",
        "Turn on ssl at the server",
    ),
    (
        "host={S} port={P} user=few dbname=open",
        Waits,
        "too many connections for role \\\"few\\\"",
        "Raise max_connections, or the CONNECTION LIMIT of the SIDE's role",
    ),
    (
        "host={S} port={P} user=ann dbname=few",
        Waits,
        "too many connections for database \\\"few\\\"",
        "Raise max_connections",
    ),
    (
        "host={S} port={P} user=postgres dbname=open options='-c nonsense=1'",
        Stops,
        "unrecognized configuration parameter",
        "",
    ),
    (
        "host={R} port={Q} user=postgres dbname=open",
        Waits,
        "the server is a standby",
        "Name the primary in the URL",
    ),
    (
        "host=127.0.0.1 port={http} user=postgres dbname=open",
        Waits,
        "what answers there is not PostgreSQL",
        "Check host and port",
    ),
    (
        "host=127.0.0.1 port={http} user=postgres dbname=open sslmode=disable",
        Waits,
        "what answers there is not PostgreSQL",
        "Check host and port",
    ),
    (
        "host=127.0.0.1 port={garbage} user=postgres dbname=open",
        Waits,
        "what answers there is not PostgreSQL",
        "Check host and port",
    ),
    (
        "host=127.0.0.1 port={garbage} user=postgres dbname=open sslmode=disable",
        Waits,
        "what answers there is not PostgreSQL",
        "Check host and port",
    ),
    (
        "host=127.0.0.1 port={closes} user=postgres dbname=open",
        Waits,
        "could not ask for TLS",
        "check that PostgreSQL listens at that port",
    ),
    (
        "host=127.0.0.1 port={closes} user=postgres dbname=open sslmode=disable",
        Waits,
        "127.0.0.1",
        "check that PostgreSQL listens at that port",
    ),
    (
        "host=127.0.0.1 port={silent} user=postgres dbname=open connect_timeout=1",
        Waits,
        "no session within 1 s",
        "Check host and port",
    ),
];
