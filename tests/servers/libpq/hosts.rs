//! Rows of servers: lists of hosts, addresses and ports, sockets, IPv6, and which of them will do.

use super::row::{Row, connected, mistake, refused, stricter, unreachable, unsuitable};

pub fn rows() -> Vec<Row> {
    [places(), lists(), addresses(), suitable()].concat()
}

fn places() -> Vec<Row> {
    vec![
        unreachable("host=localhost port={N} dbname=app user=ann"),
        unreachable("postgresql://ann@localhost:{N}/app"),
        unreachable("host=/nowhere port={P} dbname=app user=ann"),
        unreachable("host={S} port={N} dbname=app user=ann"),
        unreachable("host=nowhere.invalid port={P} dbname=app user=ann"),
        unreachable("host=' localhost' port={P} dbname=app user=ann"),
        unreachable("host=@cdc-nowhere port={P} dbname=app user=ann"),
        unreachable("host=[::1] port={P} dbname=app user=ann"),
        connected("host={S}/ port={P} dbname=app user=ann"),
        connected("host=@{S} port={P} dbname=app user=ann"),
        connected("postgresql://ann@%40{s}:{P}/app"),
        connected("host=127.1 port={P} dbname=app user=ann"),
        connected("host=LOCALHOST port={P} dbname=app user=ann"),
        connected("host={S} port=' {P} ' dbname=app user=ann"),
        connected("host={S} port=+{P} dbname=app user=ann"),
        connected("host={S} port=0{P} dbname=app user=ann"),
        mistake("host={S} port=0 dbname=app user=ann"),
        mistake("host={S} port=-1 dbname=app user=ann"),
        mistake("host={S} port=65536 dbname=app user=ann"),
        mistake("host={S} port=99999999999 dbname=app user=ann"),
        mistake("host={S} port={P}x dbname=app user=ann"),
        mistake("host={S} port='{P} {P}' dbname=app user=ann"),
        mistake("host={S} port=0x1538 dbname=app user=ann"),
        connected("postgresql://ann@[::1]:{P}/app"),
        connected("host=::1 port={P} dbname=app user=ann"),
        unreachable("postgresql://ann@[::1]:{N}/app"),
        mistake("postgresql://ann@::1:{P}/app"),
    ]
}

fn lists() -> Vec<Row> {
    vec![
        connected("host=localhost,{S} port={N},{P} dbname=app user=ann"),
        connected("host=nowhere.invalid,{S} port={P} dbname=app user=ann"),
        connected("host=/nowhere,{S} port={P},{P} dbname=app user=ann"),
        connected("postgresql://ann@localhost:{N},localhost:{P}/app"),
        connected("postgresql://ann@localhost:{N},{s}:{P}/app"),
        connected("postgresql://ann@localhost,{s}/app?port={P}"),
        connected("postgresql://ann@/app?host=/nowhere,{S}&port={N},{P}"),
        connected("postgresql://ann@localhost%2C127.0.0.1:{N}%2C{P}/app"),
        connected("postgresql://ann@[::1]:{N},127.0.0.1:{P}/app"),
        unreachable("postgresql://ann@localhost:{N},127.0.0.1:{N}/app"),
        unreachable("host=localhost,127.0.0.1 port={N} dbname=app user=ann"),
        refused("host={S},{R} port={P},{Q} dbname=nowhere user=ann"),
        refused("host={S},{R} port={P},{Q} dbname=app user=nobody"),
        mistake("host={S},{R} port={P},{Q},{P} dbname=app user=ann"),
        mistake("host={S} port={P},{Q} dbname=app user=ann"),
        mistake("host={S},{R},/nowhere port={P},{Q} dbname=app user=ann"),
        stricter(
            "postgresql://ann@localhost:{P},127.0.0.1:x/app",
            "no number from 1 to 65535",
            "libpq reads the port of the second host once it asks it",
        ),
        mistake("postgresql://ann@localhost,127.0.0.1/app?port={P},{P},{P}"),
    ]
}

fn addresses() -> Vec<Row> {
    vec![
        connected("hostaddr=127.0.0.1 port={P} dbname=app user=ann"),
        connected("host=nowhere.invalid hostaddr=127.0.0.1 port={P} dbname=app user=ann"),
        connected("host=localhost hostaddr='' port={P} dbname=app user=ann"),
        connected("host='' hostaddr=127.0.0.1 port={P} dbname=app user=ann"),
        connected("hostaddr=127.0.0.1,127.0.0.1 port={N},{P} dbname=app user=ann"),
        connected(
            "host=a.invalid,b.invalid hostaddr=127.0.0.1,127.0.0.1 port={N},{P} dbname=app user=ann",
        ),
        connected("host=x.invalid,{S} hostaddr=127.0.0.2, port={N},{P} dbname=app user=ann"),
        connected("{u}?hostaddr=127.0.0.1"),
        connected("hostaddr=::1 port={P} dbname=app user=ann"),
        connected("host={S} hostaddr=127.0.0.1 port={P} dbname=app user=ann"),
        connected("host={S} hostaddr=127.0.0.1 port={P} dbname=only_tls user=ann sslmode=require")
            .of_tls(),
        refused("host={S} hostaddr=127.0.0.1 port={P} dbname=only_plain user=ann sslmode=require")
            .of_tls(),
        unreachable("host={S} hostaddr=127.0.0.1 port={N} dbname=app user=ann"),
        mistake("hostaddr=localhost port={P} dbname=app user=ann"),
        mistake("hostaddr=127.0.0.256 port={P} dbname=app user=ann"),
        mistake("hostaddr='' host='' port=x dbname=app user=ann"),
        mistake("hostaddr=::1%lo port={N} dbname=app user=ann"),
        mistake("hostaddr={S} port={P} dbname=app user=ann"),
        mistake("hostaddr='127.0.0.1 ' port={P} dbname=app user=ann"),
        mistake("host=a,b hostaddr=127.0.0.1 port={P} dbname=app user=ann"),
        mistake("host=a hostaddr=127.0.0.1,127.0.0.1 port={P} dbname=app user=ann"),
        stricter(
            "hostaddr=127.1 port={P} dbname=app user=ann",
            "hostaddr",
            "addresses are written in full",
        ),
    ]
}

fn suitable() -> Vec<Row> {
    // Each list of hosts occurs once: cdc asks the one that took the last connection first.
    vec![
        connected("{k} target_session_attrs=any"),
        connected("{k} target_session_attrs=read-write"),
        connected("{k} target_session_attrs=primary"),
        connected("{k} target_session_attrs=prefer-standby").not_as_target(),
        unsuitable("{k} target_session_attrs=read-only").not_as_target(),
        unsuitable("{k} target_session_attrs=standby").not_as_target(),
        connected("host={R} port={Q} dbname=app user=ann"),
        connected("host={R} port={Q} dbname=app user=ann target_session_attrs=any"),
        connected("host={R} port={Q} dbname=app user=ann target_session_attrs=standby").not_as_target(),
        connected("host={R} port={Q} dbname=app user=ann target_session_attrs=read-only").not_as_target(),
        connected("host={R} port={Q} dbname=app user=ann target_session_attrs=prefer-standby").not_as_target(),
        unsuitable("host={R} port={Q} dbname=app user=ann target_session_attrs=read-write"),
        unsuitable("host={R} port={Q} dbname=app user=ann target_session_attrs=primary"),
        connected("host={S} port={P} dbname=read_only user=ann"),
        connected("host={S} port={P} dbname=read_only user=ann target_session_attrs=primary"),
        connected("host={S} port={P} dbname=read_only user=ann target_session_attrs=read-only").not_as_target(),
        unsuitable("host={S} port={P} dbname=read_only user=ann target_session_attrs=read-write"),
        unsuitable("host={S} port={P} dbname=read_only user=ann target_session_attrs=standby").not_as_target(),
        connected("host={R},{S} port={Q},{P} dbname=app user=ann target_session_attrs=read-write"),
        connected("host={R}/,{S} port={Q},{P} dbname=app user=ann target_session_attrs=primary"),
        connected("host={S},{R}/ port={P},{Q} dbname=app user=ann target_session_attrs=standby").not_as_target(),
        connected("host={S}/,{R} port={P},{Q} dbname=app user=ann target_session_attrs=read-only").not_as_target(),
        connected("host={S}/,{R}/ port={P},{Q} dbname=app user=ann target_session_attrs=prefer-standby").not_as_target(),
        connected("host={S},/nowhere port={P},{Q} dbname=app user=ann target_session_attrs=prefer-standby").not_as_target(),
        connected("postgresql://ann@{r}:{Q},{s}%2F:{P}/app?target_session_attrs=read-write"),
        connected("{k}").with("PGTARGETSESSIONATTRS", "read-write"),
        unsuitable("{k}").with("PGTARGETSESSIONATTRS", "standby").not_as_target(),
        connected("{k} target_session_attrs=any").with("PGTARGETSESSIONATTRS", "standby"),
        mistake("{k} target_session_attrs=master"),
        mistake("{k} target_session_attrs=Primary"),
        mistake("{k} target_session_attrs=''"),
        mistake("{k}").with("PGTARGETSESSIONATTRS", ""),
    ]
}
