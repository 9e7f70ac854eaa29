//! Rows of what somebody demands of the connection: channel binding, how to authenticate, when
//! certificates are shown, how TLS begins, which host comes first.
//!
//! `cdc` refuses by name what it does not do: to ignore it would weaken what is asked for.

use super::row::{Row, connected, mistake, no_password, stricter};

const BY_NAME: &str = "cdc does not do it yet, and refuses it by name";

pub fn rows() -> Vec<Row> {
    [bound(), methods_and_order(), variables()].concat()
}

fn bound() -> Vec<Row> {
    let t = |more: &str| format!("host=localhost port={{P}} dbname=scram user=ann {more}");
    vec![
        connected(&t("password=simple channel_binding=disable")),
        connected(&t("password=simple channel_binding=prefer")),
        connected(&t("password=simple channel_binding=require")).of_tls(),
        connected(&t(
            "password=simple sslmode=require channel_binding=disable",
        ))
        .of_tls(),
        mistake(&t(
            "password=simple sslmode=disable channel_binding=require",
        )),
        mistake("{t} channel_binding=require"),
        mistake("{k} channel_binding=require"),
        mistake("{k} channel_binding=nonsense"),
        mistake("{k} channel_binding=''"),
        no_password(&t("passfile=/nowhere channel_binding=require")).of_tls(),
        connected(&t("password=simple"))
            .with("PGCHANNELBINDING", "require")
            .of_tls(),
        mistake("{k}").with("PGCHANNELBINDING", "nonsense"),
    ]
}

fn methods_and_order() -> Vec<Row> {
    let name = |text: &str| stricter(text, "is not supported", BY_NAME);
    vec![
        connected("{k} require_auth=none").since(16),
        connected("{k} require_auth=!password").since(16),
        connected("host=localhost port={P} dbname=scram user=ann password=simple require_auth=scram-sha-256").since(16),
        mistake("host=localhost port={P} dbname=scram user=ann password=simple require_auth=md5").since(16),
        connected("{k} require_auth=''").since(16),
        mistake("{k} require_auth=nonsense").since(16),
        mistake("{k} require_auth=password,!md5").since(16),
        mistake("{k} require_auth=scram-sha-256").since(16),
        connected("{k} load_balance_hosts=random").since(16),
        connected("{k} load_balance_hosts=disable").since(16),
        mistake("{k} load_balance_hosts=nonsense").since(16),
        mistake("{k} load_balance_hosts=''").since(16),
        connected("{k} sslcertmode=disable").since(16),
        mistake("{t} sslmode=require sslcertmode=require").since(16),
        connected("{k} sslcertmode=allow").since(16),
        mistake("{k} sslcertmode=nonsense").since(16),
        mistake("{k} sslcertmode=''").since(16),
        connected("{k} sslnegotiation=postgres").since(17),
        name("{t} sslmode=require sslnegotiation=direct").since(17).of_tls(),
        mistake("{t} sslmode=prefer sslnegotiation=direct").since(17),
        mistake("{k} sslnegotiation=nonsense").since(17),
        mistake("{k} sslnegotiation=''").since(17),
        connected("{k} sslsni=1"),
        name("{k} sslsni=0"),
        connected("{k} sslpassword=x"),
        name("{k} sslcrldir=/nowhere"),
        name("{k} requirepeer=postgres"),
        mistake("{k} requirepeer=nobody"),
        connected("{k} gssencmode=prefer"),
        mistake("{k} gssencmode=nonsense"),
        mistake("{k} gssencmode=''"),
        mistake("{t} gssencmode=require"),
    ]
}

fn variables() -> Vec<Row> {
    let name = |text: &str| stricter(text, "is not supported", BY_NAME);
    vec![
        connected("{k}").with("PGREQUIREAUTH", "none").since(16),
        connected("{k}")
            .with("PGLOADBALANCEHOSTS", "random")
            .since(16),
        connected("{k}").with("PGSSLCERTMODE", "disable").since(16),
        name("{t} sslmode=require")
            .with("PGSSLNEGOTIATION", "direct")
            .since(17)
            .of_tls(),
        name("{k}").with("PGREQUIREPEER", "postgres"),
        name("{k}").with("PGSSLCRLDIR", "/nowhere"),
        name("{k}").with("PGSSLSNI", "0"),
        connected("{k} require_auth=''")
            .with("PGREQUIREAUTH", "nonsense")
            .since(16),
        connected("{k} sslcertmode=allow")
            .with("PGSSLCERTMODE", "nonsense")
            .since(16),
    ]
}
