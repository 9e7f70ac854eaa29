//! The identity rule, and what it refuses, case by case.

use super::*;
use crate::facts::SourceColumn;
use crate::sql::TableName;

pub(crate) fn column(name: &str, type_name: &str, not_null: bool) -> SourceColumn {
    SourceColumn {
        name: name.to_owned(),
        number: 1,
        type_oid: 0,
        type_name: type_name.to_owned(),
        bare_type_name: type_name.split('(').next().unwrap().to_owned(),
        not_null,
        toastable: false,
        generated: false,
        builtin: true,
        collatable: false,
        boolean: type_name == "boolean",
    }
}

/// The labels table of the examples: primary key id, code unique over live rows.
pub(crate) fn labels() -> SourceTable {
    let columns = vec![
        column("id", "uuid", true),
        column("code", "character varying(10)", true),
        column("label", "character varying(50)", true),
        column("display_name", "character varying(50)", true),
        column("deleted_at", "timestamp with time zone", false),
    ];
    SourceTable {
        unique_indexes: vec![unique(
            "labels_code",
            &["code"],
            Some("(deleted_at IS NULL)"),
        )],
        estimated_rows: 80.0,
        ..SourceTable::ordinary(1, TableName::new("public", "labels"), columns, &["id"])
    }
}

pub(crate) fn unique(name: &str, columns: &[&str], predicate: Option<&str>) -> UniqueIndex {
    UniqueIndex {
        name: name.to_owned(),
        columns: strings(columns),
        predicate: predicate.map(str::to_owned),
        immediate: true,
    }
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn leaf(replica_identity: ReplicaIdentity, columns: &[&str]) -> Leaf {
    Leaf {
        name: TableName::new("public", "leaf"),
        kind: 'r',
        persistence: 'p',
        replica_identity,
        has_primary_key: true,
        identity_columns: strings(columns),
    }
}

/// `expected`: "pk id" and so on, or "refused: " with a part of the error's text.
fn check(case: &str, change: impl FnOnce(&mut SourceTable), expected: &str) {
    let mut table = labels();
    change(&mut table);
    match identity(&table, &strings(&["code"]), Some("deleted_at")) {
        Ok(found) => {
            let basis = match found.basis {
                Basis::PrimaryKey => "pk",
                Basis::Index => "index",
                Basis::Key => "key",
            };
            assert_eq!(
                format!("{basis} {}", found.columns.join(",")),
                expected,
                "{case}"
            );
        }
        Err(error) => {
            let part = expected
                .strip_prefix("refused: ")
                .unwrap_or_else(|| panic!("{case}: {error:?}"));
            let text = format!("{error:?}");
            assert!(text.contains(part), "{case}: {text}");
        }
    }
}

#[test]
fn identity_follows_the_replica_identity() {
    use ReplicaIdentity::{Default, Full, Index, Nothing};
    let no_key = |table: &mut SourceTable| table.primary_key.clear();
    check("default", |_| {}, "pk id");
    check(
        "default without a primary key",
        no_key,
        "refused: neither a primary key",
    );
    check(
        "deferrable primary key",
        |t| {
            t.primary_key.clear();
            t.deferrable_primary_key = true;
        },
        "refused: deferrable",
    );
    check(
        "nothing",
        |t| t.replica_identity = Nothing,
        "refused: REPLICA IDENTITY DEFAULT",
    );
    check(
        "nothing, and no primary key to use instead",
        |t| {
            t.replica_identity = Nothing;
            t.primary_key.clear();
        },
        "refused: REPLICA IDENTITY FULL",
    );
    check(
        "index",
        |t| {
            t.replica_identity = Index;
            t.identity_index = strings(&["code"]);
        },
        "index code",
    );
    check(
        "index dropped",
        |t| t.replica_identity = Index,
        "refused: dropped",
    );
    check(
        "full with a primary key",
        |t| t.replica_identity = Full,
        "pk id",
    );
    check(
        "a unique index is offered as identity",
        |t| {
            t.primary_key.clear();
            t.unique_indexes = vec![unique("u", &["code"], None)];
        },
        "refused: USING INDEX \"u\"",
    );
    check(
        "a deferrable unique index is not offered",
        |t| {
            t.primary_key.clear();
            t.unique_indexes = vec![unique("u", &["code"], None)];
            t.unique_indexes[0].immediate = false;
        },
        "refused: REPLICA IDENTITY FULL",
    );
    check(
        "only the default is not the identity of a leaf",
        |t| t.leaves = vec![leaf(Default, &["id"]), leaf(Full, &[])],
        "pk id",
    );
    check(
        "leaf without identity",
        |t| t.leaves = vec![leaf(Nothing, &[])],
        "refused: in it would fail",
    );
    check(
        "leaf with another identity",
        |t| t.leaves = vec![leaf(Index, &["code"])],
        "refused: does not log the identity",
    );
    check(
        "leaf with another identity beside its primary key",
        |t| t.leaves = vec![leaf(Index, &["code"])],
        "refused: Use its primary key",
    );
    check(
        "leaf with another identity and no primary key",
        |t| {
            t.leaves = vec![Leaf {
                has_primary_key: false,
                ..leaf(Index, &["code"])
            }];
        },
        "refused: Log whole rows in it too",
    );
    check(
        "leaf of a wider index",
        |t| t.leaves = vec![leaf(Index, &["code", "id"])],
        "pk id",
    );
}

#[test]
fn full_without_a_primary_key_needs_a_unique_key_over_live_rows() {
    let full = |columns: &'static [&'static str], predicate: Option<&'static str>| {
        move |table: &mut SourceTable| {
            table.primary_key.clear();
            table.replica_identity = ReplicaIdentity::Full;
            table.unique_indexes = vec![unique("u", columns, predicate)];
        }
    };
    check("whole", full(&["code"], None), "key code");
    check(
        "live rows",
        full(&["code"], Some("(deleted_at IS NULL)")),
        "key code",
    );
    check(
        "quoted",
        full(&["code"], Some("(\"deleted_at\" IS NULL)")),
        "key code",
    );
    check(
        "live rows with a key",
        full(
            &["code"],
            Some("((deleted_at IS NULL) AND (code IS NOT NULL))"),
        ),
        "key code",
    );
    check(
        "dead rows",
        full(&["code"], Some("(deleted_at IS NOT NULL)")),
        "refused: no unique index",
    );
    check(
        "some live rows",
        full(
            &["code"],
            Some("((deleted_at IS NULL) AND (label IS NOT NULL))"),
        ),
        "refused: no unique index",
    );
    check(
        "another column",
        full(&["label"], None),
        "refused: no unique index",
    );
    check(
        "more columns",
        full(&["code", "label"], None),
        "refused: no unique index",
    );
    check("expression", full(&[], None), "refused: no unique index");
    let deferrable = |table: &mut SourceTable| {
        full(&["code"], None)(table);
        table.unique_indexes[0].immediate = false;
    };
    check(
        "deferrable",
        deferrable,
        "refused: by a deferrable constraint",
    );
    check(
        "deferrable and immediate",
        |table| {
            deferrable(table);
            table.unique_indexes.push(unique("v", &["code"], None));
        },
        "key code",
    );
    let mut table = labels();
    full(&["code"], None)(&mut table);
    table.leaves = vec![leaf(ReplicaIdentity::Default, &["code"])];
    let error = identity(&table, &strings(&["code"]), None).unwrap_err();
    assert!(
        error.hint().unwrap().contains("FULL"),
        "a leaf that is not FULL: {error:?}"
    );
}

#[test]
fn boolean_soft_delete_counts_null_as_live() {
    let mut table = labels();
    table.columns.push(column("deleted", "boolean", false));
    let key = strings(&["code"]);
    let holds = |table: &SourceTable, text| holds_for_live_rows(text, table, &key, Some("deleted"));
    assert!(holds(&table, "(deleted IS NOT TRUE)"));
    assert!(!holds(&table, "(NOT deleted)"));
    assert!(!holds(&table, "(deleted IS NULL)"));
    table.columns.last_mut().unwrap().not_null = true;
    assert!(holds(&table, "(NOT deleted)"));
    assert!(holds(&table, "(deleted = false)"));
}

#[test]
fn publication_never_breaks_the_writes_of_the_application() {
    let legal = |change: &dyn Fn(&mut SourceTable), columns: Option<&[&str]>, version| {
        let mut table = labels();
        change(&mut table);
        let columns = columns.map(strings);
        writes_stay_legal(&table, columns.as_deref(), version).is_ok()
    };
    let full = |t: &mut SourceTable| t.replica_identity = ReplicaIdentity::Full;
    let full_generated = |t: &mut SourceTable| {
        t.replica_identity = ReplicaIdentity::Full;
        t.columns[2].generated = true;
    };
    assert!(legal(&|_| {}, None, 150_000));
    assert!(legal(&|_| {}, Some(&["id", "code"]), 150_000));
    assert!(
        !legal(&|_| {}, Some(&["code", "label"]), 150_000),
        "list lacks the identity"
    );
    assert!(
        !legal(&|t| t.primary_key.clear(), None, 150_000),
        "no identity"
    );
    assert!(
        !legal(&full, Some(&["id", "code"]), 150_000),
        "FULL and a list"
    );
    assert!(legal(&full, None, 180_000));
    assert!(legal(&full_generated, None, 170_000));
    assert!(
        !legal(&full_generated, None, 180_000),
        "FULL with a generated column on 18"
    );
    let nothing = |t: &mut SourceTable| t.replica_identity = ReplicaIdentity::Nothing;
    assert!(!legal(&nothing, None, 150_000), "NOTHING");
    let dropped = |t: &mut SourceTable| t.replica_identity = ReplicaIdentity::Index;
    assert!(!legal(&dropped, None, 150_000), "the index was dropped");
    let by_code = |t: &mut SourceTable| {
        t.replica_identity = ReplicaIdentity::Index;
        t.identity_index = strings(&["code"]);
    };
    assert!(legal(&by_code, Some(&["code", "label"]), 150_000));
    assert!(
        !legal(&by_code, Some(&["id", "label"]), 150_000),
        "a list with the primary key alone"
    );
    let leaf_full = |t: &mut SourceTable| t.leaves = vec![leaf(ReplicaIdentity::Full, &[])];
    assert!(
        !legal(&leaf_full, Some(&["id", "code"]), 150_000),
        "a FULL leaf and a list"
    );
    assert!(!legal(
        &|t| t.leaves = vec![leaf(ReplicaIdentity::Nothing, &[])],
        None,
        150_000
    ));
}
