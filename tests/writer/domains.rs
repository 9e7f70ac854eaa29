//! Lookup columns of domains that refuse NULL, or more than that: staging, map and shadow hold the
//! type below.

use cdc::error::Class;

use crate::cases::{check, labels, other};
use crate::limits::stopping;
use crate::rig::{FIRST, Rig, shape};
use crate::support::rows;
use crate::tables::{CASES, START, UNCHANGED};

/// As `cases::TABLES`, with domains: one over another, one that rejects NULL by a CHECK.
const TABLES: &str = "
    CREATE DOMAIN present AS varchar(10) NOT NULL;
    CREATE DOMAIN code AS present CHECK (VALUE <> 'FORBIDDEN');
    CREATE DOMAIN words AS text CHECK (VALUE IS NOT NULL);
    CREATE TABLE lookup (code code PRIMARY KEY, label words, synced timestamptz NOT NULL DEFAULT now());
    CREATE TABLE resources (code varchar(10) REFERENCES lookup ON DELETE CASCADE);
    CREATE TABLE other (code text PRIMARY KEY, label text);";

#[tokio::test]
async fn small_histories_go_the_same_way_with_domains_that_refuse_null() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(true)).await;
    rig.add(&other()).await;
    for (case, start, batch, expected) in CASES.iter().chain(UNCHANGED) {
        check(&mut rig, case, start, batch, expected).await;
    }
}

#[tokio::test]
async fn what_a_domain_does_not_take_is_a_rejected_row() {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&stopping(labels(true))).await;
    rig.write(FIRST, &START).await.unwrap();
    for (change, sqlstate) in [
        ("=1|FORBIDDEN|secret|-", "23514"),
        ("=1|MR|-|-", "23514"),
        ("=1|secret-too-long|x|-", "22001"),
    ] {
        let error = rig.write(FIRST, &[change]).await.unwrap_err();
        assert_eq!(
            (error.class(), error.sqlstate()),
            (Class::Rejected, Some(sqlstate)),
            "{change}: {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("secret"), "{change}");
    }
    assert_eq!(
        rows(&rig.db, "SELECT code, label FROM lookup ORDER BY code").await,
        ["DR|Dr.", "MR|Mr."]
    );
}

/// Operators of enums, arrays and ranges are polymorphic: they do not take a domain and the type
/// below it together.
#[tokio::test]
async fn a_domain_over_any_type_can_be_key_and_value() {
    for (base, values) in [
        ("mood", ["sad", "happy"]),
        ("int[]", ["{1,NULL}", "{}"]),
        ("int4range", ["[1,5)", "empty"]),
        ("citext", ["mr", "DR"]),
        ("numeric(6,2)", ["1.50", "NaN"]),
        (
            "uuid",
            [
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ],
        ),
        ("char(4)", ["ab  ", "cd  "]),
        ("interval", ["1 day", "02:00:00"]),
        ("bit varying(5)", ["101", "0"]),
        ("pair", ["(1,a)", "(2,\"b c\")"]),
    ] {
        let mut rig = Rig::new(&format!(
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE pair AS (a int, b text);
             CREATE DOMAIN inner_one AS {base} NOT NULL; CREATE DOMAIN outer_one AS inner_one;
             CREATE TABLE lookup (k outer_one PRIMARY KEY, v outer_one, n text);"
        ))
        .await;
        let columns = [
            ("id", "bigint"),
            ("k", "text"),
            ("v", "text"),
            ("n", "text"),
            ("deleted_at", "text"),
        ];
        let projected = [("k", "k"), ("v", "v"), ("n", "n")];
        rig.add(&shape("lookup", &columns, &["id"], &projected, 1, true))
            .await;
        let [one, two] = values;
        let shown = "SELECT k::text, v::text, n FROM lookup ORDER BY n";
        let row = |k: &str, v: &str, n: &str| format!("{}|{}|{n}", k.trim_end(), v.trim_end());
        rig.write(
            FIRST,
            &[format!("+1|{one}|{two}|a|-"), format!("+2|{two}|{one}|b|-")],
        )
        .await
        .unwrap_or_else(|error| panic!("{base}: {error:?}"));
        assert_eq!(
            rows(&rig.db, shown).await,
            [row(one, two, "a"), row(two, one, "b")],
            "{base}"
        );
        let swap = [format!("=1|{two}|u|a|-"), format!("=2|{one}|u|b|-")];
        assert_eq!(rig.write(FIRST, &swap).await.unwrap().updated, 2, "{base}");
        assert_eq!(
            rows(&rig.db, shown).await,
            [row(two, two, "a"), row(one, one, "b")],
            "{base}"
        );
        let again = [format!("=1|{two}|{two}|a|-")];
        assert_eq!(
            rig.write(FIRST, &again).await.unwrap().changed(),
            0,
            "{base}"
        );
        rig.write(FIRST, &["=1|u|u|a|x"]).await.unwrap();
        assert_eq!(rows(&rig.db, shown).await, [row(one, one, "b")], "{base}");
        rig.write(FIRST, &["=1|u|u|a|-"]).await.unwrap();
        assert_eq!(
            rows(&rig.db, shown).await,
            [row(two, two, "a"), row(one, one, "b")],
            "{base}"
        );
    }
}
