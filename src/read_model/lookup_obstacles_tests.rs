//! Cases of what a lookup must be to be written and to be read.

use super::*;
use crate::error::Class;
use crate::facts::{KeyColumn, KeyIndex};
use crate::identity::tests::{labels, strings};

const WRITER: LookupWriter<'_> = LookupWriter {
    schema: "cdc",
    role: "cdc",
};

pub(crate) fn lookup_column(name: &str, type_name: &str) -> LookupColumn {
    LookupColumn {
        declared_type_name: type_name.to_owned(),
        name: name.to_owned(),
        type_oid: 0,
        type_name: type_name.to_owned(),
        bare_type_name: type_name.split('(').next().unwrap().to_owned(),
        collation: None,
        collatable: false,
        not_null: true,
        has_default: false,
        generated: false,
    }
}

/// The lookup of the examples.
pub(crate) fn lookup() -> LookupTable {
    LookupTable {
        oid: 2,
        name: TableName::new("public", "labels_lookup"),
        kind: 'r',
        persistence: 'p',
        has_parts: false,
        columns: vec![
            lookup_column("code", "character varying(10)"),
            lookup_column("label", "character varying(50)"),
            lookup_column("display_name", "character varying(50)"),
            lookup_column("updated_at", "timestamp with time zone"),
        ],
        unique_indexes: vec![KeyIndex {
            name: "labels_lookup_pkey".to_owned(),
            primary: true,
            columns: vec![KeyColumn {
                name: "code".to_owned(),
                equality: "OPERATOR(\"pg_catalog\".=)".to_owned(),
            }],
        }],
        triggers: Vec::new(),
        referenced_by: Vec::new(),
        row_security_applies: false,
        missing_privileges: Vec::new(),
    }
}

fn found(alter: impl FnOnce(&mut LookupTable)) -> Vec<Error> {
    let mut lookup = lookup();
    alter(&mut lookup);
    let settings = ReadModelSettings::labels();
    lookup_obstacles(&settings, &lookup, Some(&labels()), WRITER)
}

#[test]
fn each_obstacle_says_what_to_do() {
    assert!(found(|_| ()).is_empty());
    type Alter = fn(&mut LookupTable);
    let cases: [(Alter, &str, &str); 15] = [
        (|t| t.kind = 'v', "it is not a table", "another name"),
        (|t| t.kind = 'f', "it is not a table", "another name"),
        (
            |t| t.persistence = 'u',
            "crash would empty it",
            "SET LOGGED",
        ),
        (
            |t| t.persistence = 't',
            "crash would empty it",
            "SET LOGGED",
        ),
        (
            |t| t.row_security_applies = true,
            "row-level security",
            "BYPASSRLS",
        ),
        (
            |t| t.missing_privileges = strings(&["INSERT", "USAGE"]),
            "role \"cdc\" lacks INSERT, USAGE",
            "GRANT USAGE ON SCHEMA \"public\" TO \"cdc\"; GRANT INSERT ON \"public\".\"labels_lookup\" TO \"cdc\";",
        ),
        (
            |t| drop(t.columns.remove(1)),
            "column \"label\" does not exist",
            "ADD COLUMN \"label\" character varying(50);",
        ),
        (
            |t| t.columns[1].generated = true,
            "column \"label\" is generated",
            "Leave the column out",
        ),
        (
            |t| drop(t.columns.remove(3)),
            "column \"updated_at\" (synced_at) does not exist",
            "ADD COLUMN \"updated_at\" timestamptz",
        ),
        (
            |t| t.columns[3].generated = true,
            "(synced_at) is generated",
            "Leave read_model.synced_at out",
        ),
        (
            |t| t.columns[3].bare_type_name = "integer".to_owned(),
            "not timestamptz",
            "Leave read_model.synced_at out",
        ),
        (
            |t| {
                let name = "more".to_owned();
                let more = LookupColumn {
                    name,
                    ..t.columns[1].clone()
                };
                t.columns.push(more);
            },
            "no source column fills it",
            "DROP NOT NULL",
        ),
        (
            |t| t.unique_indexes.clear(),
            "no unique index on exactly its key (code)",
            "CREATE UNIQUE INDEX CONCURRENTLY ON",
        ),
        (
            |t| {
                t.kind = 'p';
                t.unique_indexes.clear();
            },
            "no unique index on exactly its key (code)",
            "CREATE UNIQUE INDEX ON",
        ),
        (
            |t| t.columns[1].type_name = "a$cdc$b".to_owned(),
            "the name a$cdc$b holds $cdc$",
            "Rename",
        ),
    ];
    for (alter, why, hint) in cases {
        let found = found(alter);
        assert_eq!(found.len(), 1, "{why}: {found:?}");
        assert_eq!(found[0].class(), Class::Broken, "{why}");
        assert!(found[0].to_string().contains(why), "{}", found[0]);
        assert!(found[0].hint().unwrap().contains(hint), "{:?}", found[0]);
    }
}

#[test]
fn what_writing_does_without_is_no_obstacle() {
    type Alter = fn(&mut LookupTable);
    let cases: [Alter; 6] = [
        |t| t.kind = 'p',
        |t| t.columns[1].not_null = false,
        |t| t.referenced_by = vec![TableName::new("public", "orders")],
        |t| t.columns[3].bare_type_name = "timestamp without time zone".to_owned(),
        // Its values decide, row by row.
        |t| t.columns[1].bare_type_name = "boolean".to_owned(),
        // The trigger may fill the column.
        |t| {
            let name = "more".to_owned();
            let more = LookupColumn {
                name,
                ..t.columns[1].clone()
            };
            t.columns.push(more);
            t.triggers = strings(&["trigger fill"]);
        },
    ];
    for (case, alter) in cases.into_iter().enumerate() {
        let found = found(alter);
        assert!(found.is_empty(), "{case}: {found:?}");
    }
}

/// A role that may only read compares.
#[test]
fn reading_takes_less_than_writing() {
    let reading = |alter: fn(&mut LookupTable)| {
        let mut lookup = lookup();
        alter(&mut lookup);
        lookup_reading(&lookup, "cdc").len()
    };
    assert_eq!(
        reading(|t| t.missing_privileges = strings(&["INSERT", "UPDATE", "DELETE"])),
        0
    );
    assert_eq!(
        reading(|t| t.missing_privileges = strings(&["SELECT", "USAGE"])),
        1
    );
    assert_eq!(reading(|t| t.row_security_applies = true), 1);
    assert_eq!(reading(|t| t.kind = 'f'), 0);
}
