//! Rows of TLS: every sslmode, authorities, lists of revoked certificates, versions.

use super::row::{Row, connected, mistake, refused, stricter};

const NAMED: &str = "a file that is named must be there: it says what to trust";
const NEW: &str = "earlier versions of TLS are not spoken";

pub fn rows() -> Vec<Row> {
    let rows = [modes(), authorities(), versions()].concat();
    rows.into_iter().map(Row::of_tls).collect()
}

fn modes() -> Vec<Row> {
    let at = |database: &str, mode: &str| {
        format!("host=localhost port={{P}} dbname={database} user=ann sslmode={mode}")
    };
    vec![
        connected(&at("app", "disable")),
        connected(&at("app", "allow")),
        connected(&at("app", "prefer")),
        connected(&at("app", "require")),
        refused(&at("only_tls", "disable")),
        connected(&at("only_tls", "allow")),
        connected(&at("only_tls", "prefer")),
        connected(&at("only_tls", "require")),
        connected(&at("only_plain", "disable")),
        connected(&at("only_plain", "allow")),
        connected(&at("only_plain", "prefer")),
        refused(&at("only_plain", "require")),
        mistake(&at("app", "verify-ca")),
        mistake(&at("app", "verify-full")),
        mistake(&at("app", "verify")),
        mistake(&at("app", "REQUIRE")),
        mistake(&at("app", "''")),
        mistake("{u}?sslmode="),
        mistake("{u}?sslmode=on"),
        // On a socket there is no TLS, whatever sslmode says.
        connected("{k} sslmode=require"),
        connected("{k} sslmode=verify-ca"),
        connected("{k} sslmode=verify-full"),
        mistake("{k} sslmode=nonsense"),
    ]
}

fn authorities() -> Vec<Row> {
    let t = |more: &str| format!("{{t}} {more}");
    vec![
        connected(&t("sslmode=verify-ca sslrootcert={C}/ca.crt")),
        connected(&t("sslmode=verify-full sslrootcert={C}/ca.crt")),
        connected(&t("sslmode=require sslrootcert={C}/ca.crt")),
        connected(
            "host=127.0.0.1 port={P} dbname=app user=ann sslmode=verify-ca sslrootcert={C}/ca.crt",
        ),
        mistake(
            "host=127.0.0.1 port={P} dbname=app user=ann sslmode=verify-full sslrootcert={C}/ca.crt",
        ),
        connected(
            "host=localhost hostaddr=127.0.0.1 port={P} dbname=app user=ann sslmode=verify-full sslrootcert={C}/ca.crt",
        ),
        mistake(
            "hostaddr=127.0.0.1 port={P} dbname=app user=ann sslmode=verify-full sslrootcert={C}/ca.crt",
        ),
        mistake(&t("sslmode=verify-ca sslrootcert={C}/other.crt")),
        mistake(&t("sslmode=verify-full sslrootcert={C}/other.crt")),
        mistake(&t("sslmode=require sslrootcert={C}/other.crt")),
        mistake(&t("sslmode=verify-full sslrootcert=/nowhere")),
        mistake(&t("sslmode=verify-ca sslrootcert=/nowhere")),
        mistake(&t("sslmode=verify-ca sslrootcert=''")),
        connected(&t("sslmode=disable sslrootcert=/nowhere")),
        connected(&t(""))
            .with("PGSSLROOTCERT", "{C}/ca.crt")
            .with("PGSSLMODE", "verify-full"),
        mistake(&t(""))
            .with("PGSSLROOTCERT", "{C}/other.crt")
            .with("PGSSLMODE", "verify-full"),
        mistake(&t("sslrootcert=system sslmode=require")).since(16),
        mistake(&t("sslrootcert=system")).since(16),
        stricter(
            &t("sslmode=require sslrootcert=/nowhere"),
            "cannot read root certificate file",
            NAMED,
        ),
        stricter(
            &t("sslcrl=/nowhere sslmode=verify-ca sslrootcert={C}/ca.crt"),
            "cannot read certificate revocation list",
            NAMED,
        ),
        stricter(
            &t("sslmode=require sslcert=/nowhere"),
            "cannot read client certificate file",
            NAMED,
        ),
    ]
}

fn versions() -> Vec<Row> {
    let t = |more: &str| format!("{{t}} sslmode=require {more}");
    vec![
        connected(&t("ssl_min_protocol_version=TLSv1.2")),
        connected(&t("ssl_min_protocol_version=TLSv1.3")),
        connected(&t("ssl_min_protocol_version=TLSv1")),
        connected(&t("ssl_min_protocol_version=''")),
        connected(&t("ssl_max_protocol_version=TLSv1.2")),
        connected(&t("ssl_max_protocol_version=TLSv1.3")),
        connected(&t("ssl_min_protocol_version=tlsv1.2")),
        mistake(&t("ssl_min_protocol_version=1.2")),
        mistake(&t("ssl_max_protocol_version=nonsense")),
        mistake(&t(
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        )),
        mistake(&t("")).with("PGSSLMINPROTOCOLVERSION", "nonsense"),
        connected(&t("")).with("PGSSLMAXPROTOCOLVERSION", "TLSv1.2"),
        stricter(
            "{k} ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1",
            "must be TLSv1.2 or TLSv1.3",
            NEW,
        ),
    ]
}
