//! Rows of passwords: in the string, in variables, and in password files.

use super::row::{Row, connected, mistake, no_password, refused, stricter};

const ONE_PASSWORD: &str =
    "all servers of a connection string are taken for one system with one password";

/// Files with their modes.
pub const FILES: &[(&str, u32, &str)] = &[
    (".pgpass", 0o600, "*:*:scram:ann:simple\n"),
    (
        "pass",
        0o600,
        "# *:*:*:*:no\n\n*:1:*:*:no\nlocalhost:{P}:scram:ann:simple\r\nlocalhost:*:*:o'neil:it's\n\
         *:*:*:ann@home\\:5:p@s\\:s/w?r#d%\n*:*:*:änn 😀:🔑 tab\there\n*:*:*:back\\\\slash:back\\\\slash\\\\\n\
         *:*:*:blank: p w \n*:*:*:comma:a,b:rest\n\\*:*:*:equal:no\n*:*:*:equal:a=b&c=d",
    ),
    ("pass.socket", 0o600, "{S}:{P}:scram:ann:simple\n"),
    ("pass.localhost", 0o600, "localhost:{P}:scram:ann:simple\n"),
    ("pass.address", 0o600, "127.0.0.1:{P}:scram:ann:simple\n"),
    ("pass.v6", 0o600, "\\:\\:1:{P}:scram:ann:simple\n"),
    (
        "pass.empty",
        0o600,
        "*:*:scram:ann:\n*:*:scram:ann:simple\n",
    ),
    (
        "pass.wrong",
        0o600,
        "*:*:scram:ann:wrong\n*:*:scram:ann:simple\n",
    ),
    ("pass.short", 0o600, "*:*:scram:ann\n"),
    ("pass.star", 0o600, "*x:*:*:*:wrong\n*:*:*:*:simple"),
    ("pass.open", 0o640, "*:*:*:*:simple\n"),
    ("pass.public", 0o604, "*:*:*:*:simple\n"),
    ("pass.readonly", 0o400, "*:*:*:*:simple\n"),
    (
        "pass.two",
        0o600,
        "localhost:*:*:*:simple\n127.0.0.1:*:*:*:other\n",
    ),
    ("pass.some", 0o600, "localhost:*:*:*:simple\n"),
];

pub fn rows() -> Vec<Row> {
    [strings(), files(), kinds_of_files()].concat()
}

/// ann's place, where the server asks for a password.
const K: &str = "host={S} port={P} dbname=scram user=ann passfile=/nowhere";
const T: &str = "host=localhost port={P} dbname=scram user=ann passfile=/nowhere";

fn strings() -> Vec<Row> {
    let k = |more: &str| format!("{K} {more}");
    let url = |who: &str| format!("postgresql://{who}@localhost:{{P}}/scram?passfile=/nowhere");
    vec![
        connected(&k("password=simple")),
        connected(&k("password='simple'")),
        connected(&format!("{T} password=simple")),
        connected(&format!("{T} password=simple sslmode=disable")),
        connected(&k("user='änn 😀' password='🔑 tab\there'")),
        connected(&k(r"user='back\\slash' password='back\\slash\\'")),
        connected(&k(r"user=back\\slash password=back\\slash\\")),
        connected(&k("user='ann@home:5' password='p@s:s/w?r#d%'")),
        connected(&k(r"user='o\'neil' password='it\'s'")),
        connected(&k("user=blank password=' p w '")),
        connected(&k("user=comma password=a,b")),
        connected(&k("user=equal password=a=b&c=d")),
        connected(&url("ann:simple")),
        connected(&url("ann%40home%3A5:p%40s%3As%2Fw%3Fr%23d%25")),
        connected(&url("ann%40home%3A5:p%40s:s%2Fw?r#d%25")),
        connected(&url("%C3%A4nn%20%F0%9F%98%80:%F0%9F%94%91%20tab%09here")),
        connected(&url("änn%20😀:🔑%20tab%09here")),
        connected(&url("blank:%20p%20w%20")),
        connected(&url("equal:a=b&c=d")),
        connected("postgresql://ann@localhost:{P}/scram?password=simple"),
        connected(&k("")).with("PGPASSWORD", "simple"),
        connected(&k("password=simple")).with("PGPASSWORD", "wrong"),
        no_password(&k("password=''")).with("PGPASSWORD", "simple"),
        connected(&k("user='änn 😀'")).with("PGPASSWORD", "🔑 tab\there"),
        refused(&k("password=wrong")),
        refused(&k("password=Simple")),
        refused(&k("password='simple '")),
        refused(&k("")).with("PGPASSWORD", "simple\n"),
        refused(&url("ann:wrong")),
        refused(&k("user=nobody password=simple")),
        no_password(K),
        no_password(T),
        no_password(&url("ann")),
        no_password(&url("ann:")),
        no_password(K).with("PGPASSWORD", ""),
        mistake(&url("ann@home:simple")),
    ]
}

fn files() -> Vec<Row> {
    let at = |user: &str| {
        format!("host=localhost port={{P}} dbname=scram user='{user}' passfile={{D}}/pass")
    };
    vec![
        connected("host=localhost port={P} dbname=scram user=ann"),
        connected("host=localhost port={P} dbname=scram user=ann").with("PGPASSFILE", ""),
        connected("host=localhost port={P} dbname=scram user=ann passfile=''")
            .with("PGPASSFILE", "/nowhere"),
        no_password("host=localhost port={P} dbname=scram user=ann").with("PGPASSFILE", "/nowhere"),
        connected("host=localhost port={P} dbname=scram user=ann")
            .with("PGPASSFILE", "{D}/pass.star"),
        connected("host=localhost port={P} dbname=scram user=ann passfile={D}/pass")
            .with("PGPASSFILE", "/nowhere"),
        connected(&at("ann")),
        connected(&at(r"o\'neil")),
        connected(&at("ann@home:5")),
        connected(&at("änn 😀")),
        connected(&at(r"back\\slash")),
        connected(&at("blank")),
        connected(&at("comma")),
        connected(&at("equal")),
        no_password(&at("nobody")),
        no_password("host=127.0.0.1 port={P} dbname=scram user=ann passfile={D}/pass"),
        connected("{u}?passfile={D}/pass&dbname=scram"),
        connected("host=localhost port={P} dbname=scram user=ann passfile={D}/pass password=''"),
        refused("host=localhost port={P} dbname=scram user=ann passfile={D}/pass password=wrong"),
        refused("host=localhost port={P} dbname=scram user=ann passfile={D}/pass")
            .with("PGPASSWORD", "wrong"),
    ]
}

fn kinds_of_files() -> Vec<Row> {
    let named = |host: &str, file: &str| {
        format!("{host} port={{P}} dbname=scram user=ann passfile={{D}}/pass.{file}")
    };
    vec![
        connected(&named("host={S}", "socket")),
        no_password(&named("host={S}/", "socket")),
        no_password(&named("host=localhost", "socket")),
        no_password(&named("host={S}", "localhost")),
        connected(&named("host=localhost", "localhost")),
        no_password(&named("host=127.0.0.1", "localhost")),
        no_password(&named("host=LOCALHOST", "localhost")),
        connected(&named("host=localhost hostaddr=127.0.0.1", "localhost")),
        connected(&named("hostaddr=127.0.0.1", "address")),
        no_password(&named("host=localhost hostaddr=127.0.0.1", "address")),
        connected(&named("host=::1", "v6")),
        no_password(&named("host=localhost", "empty")),
        refused(&named("host=localhost", "wrong")),
        no_password(&named("host=localhost", "short")),
        connected(&named("host=localhost", "star")),
        no_password(&named("host=localhost", "open")),
        no_password(&named("host=localhost", "public")),
        connected(&named("host=localhost", "readonly")),
        no_password("host=localhost port={P} dbname=scram user=ann passfile={D}"),
        stricter(
            &named("host=localhost,127.0.0.1", "two"),
            "different passwords",
            ONE_PASSWORD,
        ),
        stricter(
            &named("host=localhost,127.0.0.1", "some"),
            "for some of the hosts",
            ONE_PASSWORD,
        ),
        connected(&named("host=localhost,127.0.0.1", "star")),
    ]
}
