//! Rows of keywords with values of their own: times, signs of life, names, options, encodings.

use super::row::{Kind, Row, connected, mistake, refused, stated, stricter};

const NUMBERS: &str =
    "libpq reads these numbers for TCP alone, and a typing mistake goes unseen on a socket";
const MANUAL: &str =
    "libpq's manual takes 0 for the default, and Linux refuses the 0 that libpq hands on";
const NAMES: &str = "cdc finds its own sessions by their names, so each has one";
const UTF8: &str = "everything is read as UTF-8: the server converts";
const OWN: &str = "cdc opens replication connections by itself, and ordinary ones beside them";

pub fn rows() -> Vec<Row> {
    [times(), signs_of_life(), names(), others()].concat()
}

fn times() -> Vec<Row> {
    vec![
        connected("{k} connect_timeout=2"),
        connected("{k} connect_timeout=0"),
        connected("{k} connect_timeout=-1"),
        connected("{k} connect_timeout=' 5 '"),
        connected("{k} connect_timeout=+5"),
        connected("{k} connect_timeout=2147483647"),
        connected("{k}").with("PGCONNECT_TIMEOUT", "3"),
        connected("{k} connect_timeout=3").with("PGCONNECT_TIMEOUT", "x"),
        mistake("{k} connect_timeout=x"),
        mistake("{k} connect_timeout=5s"),
        mistake("{k} connect_timeout=1.5"),
        mistake("{k} connect_timeout=2147483648"),
        mistake("{k} connect_timeout=-2147483649"),
        mistake("{k} connect_timeout=99999999999999999999"),
        mistake("{k} connect_timeout=''"),
        mistake("{k}").with("PGCONNECT_TIMEOUT", ""),
        mistake("{k}").with("PGCONNECT_TIMEOUT", "soon"),
        mistake("{u}?connect_timeout="),
    ]
}

fn signs_of_life() -> Vec<Row> {
    vec![
        connected("{t} keepalives=0"),
        connected("{t} keepalives=1"),
        connected("{t} keepalives=5"),
        connected("{t} keepalives=-1"),
        stricter(
            "{t} keepalives=0 keepalives_idle=x",
            "whole number",
            NUMBERS,
        ),
        mistake("{t} keepalives=x"),
        mistake("{t} keepalives=on"),
        mistake("{t} keepalives=''").since(17),
        connected("{t} keepalives_idle=10 keepalives_interval=5 keepalives_count=3"),
        stated(
            "{t} keepalives_idle=0 keepalives_interval=0 keepalives_count=0",
            Kind::Mistake,
            MANUAL,
        ),
        stated(
            "{t} keepalives_idle=-1 keepalives_interval=-1 keepalives_count=-1",
            Kind::Mistake,
            MANUAL,
        ),
        mistake("{t} keepalives_idle=x"),
        mistake("{t} keepalives_interval=x"),
        mistake("{t} keepalives_count=x"),
        mistake("{t} keepalives_idle=''"),
        mistake("{t} keepalives_idle=99999999999"),
        connected("{t} tcp_user_timeout=10000"),
        connected("{t} tcp_user_timeout=0"),
        connected("{t} tcp_user_timeout=-5"),
        mistake("{t} tcp_user_timeout=x"),
        mistake("{t} tcp_user_timeout=''"),
        stricter("{k} keepalives=x", "whole number", NUMBERS),
        stricter("{k} keepalives_idle=x", "whole number", NUMBERS),
        stricter("{k} tcp_user_timeout=x", "whole number", NUMBERS),
    ]
}

fn names() -> Vec<Row> {
    vec![
        connected("{k} application_name=x"),
        connected("{k} application_name='a b'"),
        stated("{k} application_name=''", Kind::Connected, NAMES),
        connected("{k}").with("PGAPPNAME", "from variable"),
        stated("{k}", Kind::Connected, NAMES).with("PGAPPNAME", ""),
        connected("{k} application_name=x").with("PGAPPNAME", "y"),
        connected("{k} application_name=änn😀"),
        connected(
            "{k} application_name=a_name_of_more_than_sixty_three_characters_which_the_server_cuts_off_there",
        ),
        // psql's own comes later in its list, and so replaces it; cdc names its sessions itself.
        connected("{k} fallback_application_name=x"),
        connected("{k} options='-c geqo=off'"),
        connected("{k} options='-c geqo=off -c cpu_tuple_cost=0.5'"),
        connected("{k} options='--geqo=off'"),
        connected("{k} options='-cgeqo=off'"),
        connected(r"{k} options='-c application_name=a\\ b'"),
        connected("{k} options=''"),
        connected("{k}").with("PGOPTIONS", "-c geqo=off"),
        connected("{k} options='-c cpu_tuple_cost=0.5'").with("PGOPTIONS", "-c geqo=off"),
        connected("{k} options=''").with("PGOPTIONS", "-c geqo=off"),
        connected("{k} options='-c search_path=nowhere -c statement_timeout=1h'"),
        refused("{k} options='-c nonsense=1'"),
        refused("{k} options='-c geqo=perhaps'"),
        refused("{k} options='-c wal_level=logical'"),
        refused("{k} options=nonsense"),
    ]
}

fn others() -> Vec<Row> {
    vec![
        connected("{k} client_encoding=UTF8"),
        connected("{k} client_encoding=utf-8"),
        connected("{k} client_encoding=auto"),
        connected("{k} client_encoding=''"),
        connected("{k}").with("PGCLIENTENCODING", "LATIN1"),
        stricter("{k} client_encoding=LATIN1", "must be UTF8", UTF8),
        stricter("{k} client_encoding=SQL_ASCII", "must be UTF8", UTF8),
        stricter("{k} client_encoding=nonsense", "must be UTF8", UTF8),
        connected("{k} replication=false"),
        connected("{k} replication=off"),
        connected("{k} replication=''"),
        stricter(
            "{k} replication=database",
            "\"replication\" is not allowed",
            OWN,
        ),
        stricter(
            "{k} replication=true",
            "\"replication\" is not allowed",
            OWN,
        ),
        stricter(
            "{k} replication=nonsense",
            "\"replication\" is not allowed",
            OWN,
        ),
        connected("{k} sslcompression=1"),
        connected("{k} sslcompression=0"),
        connected("{k} krbsrvname=x"),
        connected("{k} gsslib=gssapi"),
        connected("{k} gssencmode=disable"),
        connected("{k}").with("PGGSSENCMODE", "disable"),
        connected("{k}")
            .with("PGDATESTYLE", "German")
            .with("PGTZ", "Asia/Tokyo"),
        connected("{k} gssdelegation=1").since(16),
        connected("{k} max_protocol_version=3.0").since(18),
        connected("{k} min_protocol_version=3.0").since(18),
    ]
}
