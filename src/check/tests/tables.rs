//! What is found of the tables of both sides.

use super::*;
use crate::facts::Leaf;
use crate::identity::tests::{column, unique};

#[test]
fn source_table_is_checked() {
    finds("error", "does not exist at the source", |c| {
        c.source.models[0].table = None
    });
    finds("error", "a view", |c| c.table().kind = 'v');
    finds("error", "a materialized view", |c| c.table().kind = 'm');
    finds("error", "a foreign table", |c| c.table().kind = 'f');
    finds("note", "single partition", |c| c.table().kind = 'p');
    finds("error", "SET LOGGED", |c| c.table().persistence = 'u');
    finds("error", "inherit", |c| {
        c.table().has_inheritance_children = true
    });
    finds("error", "row-level security", |c| {
        c.table().row_security_applies = true
    });
    finds(
        "error",
        "GRANT SELECT ON \\\"public\\\".\\\"labels\\\" TO \\\"cdc\\\"",
        |c| c.table().may_select = false,
    );
    finds("error", "column \"label\" does not exist", |c| {
        c.table().columns[2].name = "text".to_owned()
    });
    finds("error", "is generated", |c| {
        c.table().columns[2].generated = true
    });
    finds(
        "error",
        "soft-delete column \"deleted_at\" does not exist",
        |c| {
            c.table().columns.pop();
        },
    );
    finds("warning", "every row counts as deleted", |c| {
        c.table().columns[4].not_null = true
    });
    finds("warning", "any value but NULL", |c| {
        c.table().columns[4] = column("deleted_at", "integer", false);
    });
    finds(
        "note",
        "may be NULL; such rows are left out (3 rows now)",
        |c| {
            c.table().columns[1].not_null = false;
            c.source.models[0].without_key = Some(3);
        },
    );
    for (rows, told) in [
        (None, "such rows are left out None"),
        (Some(0), "such rows are left out None"),
        (Some(1), "left out (1 row now) None"),
    ] {
        finds("note", told, |c| {
            c.table().columns[1].not_null = false;
            c.source.models[0].without_key = rows;
        });
    }
    for (keys, told) in [
        (1, "1 key (code) belongs to more than one live row"),
        (3, "3 keys (code) belong to more than one live row"),
    ] {
        finds("warning", told, |c| {
            c.source.models[0].duplicates = Some(keys)
        });
    }
    finds("note", "CREATE UNIQUE INDEX CONCURRENTLY", |c| {
        c.table().unique_indexes.clear()
    });
    finds("note", "IS NULL;", |c| {
        // On an expression.
        c.table().unique_indexes = vec![unique("labels_lower", &[], None)];
    });
    finds("note", "IS NOT TRUE;", |c| {
        c.settings.read_models[0].soft_delete = Some("hidden".to_owned());
        c.table().columns.push(column("hidden", "boolean", false));
        c.table().unique_indexes.clear();
    });
    finds("note", "costs much WAL", |c| {
        c.table().replica_identity = ReplicaIdentity::Full
    });
    finds("error", "deferrable", |c| {
        c.table().primary_key.clear();
        c.table().deferrable_primary_key = true;
        let mut index = unique("labels_pkey", &["id"], None);
        index.immediate = false;
        c.table().unique_indexes.push(index);
    });
}

#[test]
fn publications_that_leave_update_and_delete_alone_break_nothing() {
    let breaks = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::good();
        case.published().columns = Some(strings(&["code"]));
        change(&mut case);
        let findings = check(&case.settings, Some(&case.source), Some(&case.target));
        findings
            .iter()
            .any(|finding| finding.message.contains("makes UPDATE and DELETE"))
    };
    for (update, delete, expected) in [
        (true, true, true),
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let found = breaks(&|c| {
            let publication = &mut c.source.models[0].publications[0];
            (publication.update, publication.delete) = (update, delete);
        });
        assert_eq!(found, expected, "UPDATE {update}, DELETE {delete}");
    }
    let elsewhere = |c: &mut Case| c.published().table.name = "leaf".to_owned();
    assert!(!breaks(&elsewhere), "another table");
    let leaf = |c: &mut Case| {
        elsewhere(c);
        c.table().leaves = vec![Leaf {
            name: TableName::new("public", "leaf"),
            kind: 'r',
            persistence: 'p',
            replica_identity: ReplicaIdentity::Default,
            has_primary_key: true,
            identity_columns: strings(&["id"]),
        }];
    };
    assert!(breaks(&leaf), "a partition of it");
}

/// Of none of these the changes come in the stream under the table's name.
#[test]
fn partitions_that_the_stream_does_not_tell_are_found() {
    let leaf = |kind: char, persistence: char| Leaf {
        name: TableName::new("public", "leaf"),
        kind,
        persistence,
        replica_identity: ReplicaIdentity::Default,
        has_primary_key: true,
        identity_columns: strings(&["id"]),
    };
    finds(
        "error: table",
        "partition \"public.leaf\" is unlogged",
        |c| {
            c.table().leaves = vec![leaf('r', 'p'), leaf('r', 'u')];
        },
    );
    finds(
        "error: table",
        "partition \"public.leaf\" is a foreign table",
        |c| {
            c.table().leaves = vec![leaf('f', 'p')];
        },
    );
    let root = |c: &mut Case| c.table().partition_of = vec![TableName::new("public", "root")];
    fine(root);
    finds(
        "error: table",
        "it is a partition of \"public.root\"",
        |c| {
            root(c);
            let mut publication = c.source.models[0].publications[0].clone();
            publication.via_root = true;
            publication.tables[0].table = TableName::new("public", "root");
            c.source.publication = Some(publication);
        },
    );
}

#[test]
fn lookups_that_will_do_are_taken_as_they_are() {
    fine(|c| c.lookup().kind = 'p');
    fine(|c| c.lookup().columns[1] = lookup_column("label", "character varying(100)"));
    // Columns outside of the projection that fill themselves.
    for (not_null, has_default) in [(false, false), (true, true)] {
        fine(|c| {
            c.lookup().columns.push(LookupColumn {
                not_null,
                has_default,
                ..lookup_column("more", "integer")
            });
        });
    }
    // A row without its key is not shown, so the lookup's key may be NOT NULL: only the finding of
    // the source's table says so.
    finds("note: table", "such rows are left out", |c| {
        c.table().columns[1].not_null = false;
    });
    fine(|c| c.lookup().columns[1].not_null = false);
    finds("error", "(synced_at) is generated", |c| {
        c.lookup().columns[3].generated = true
    });
    finds("error", "ADD COLUMN \\\"label\\\" <type>", |c| {
        c.lookup().columns.remove(1);
        c.table().columns.remove(2);
    });
    finds("error", "GRANT USAGE ON SCHEMA", |c| {
        c.lookup().missing_privileges = strings(&["USAGE"]);
    });
}

#[test]
fn lookup_table_is_checked() {
    finds("note", "cdc setup and cdc run make it", |c| {
        c.target.lookups[0] = None
    });
    finds("warning", "must exist at the target", |c| {
        c.target.lookups[0] = None;
        c.table().columns[1].builtin = false;
    });
    assert_eq!(
        found_after(|c| c.target.lookups[0] = None).len(),
        2,
        "types that are built in are there"
    );
    finds("error", "not a table", |c| c.lookup().kind = 'v');
    finds("error", "crash would empty it", |c| {
        c.lookup().persistence = 'u'
    });
    finds("error", "BYPASSRLS", |c| {
        c.lookup().row_security_applies = true
    });
    finds("error", "GRANT INSERT, DELETE ON", |c| {
        c.lookup().missing_privileges = strings(&["INSERT", "DELETE", "USAGE"]);
    });
    finds("warning", "trigger t", |c| {
        c.lookup().triggers = strings(&["trigger t"])
    });
    finds("note", "public.orders", |c| {
        c.lookup().referenced_by = vec![TableName::new("public", "orders")]
    });
    finds("error", "no unique index on exactly its key", |c| {
        c.lookup().unique_indexes.clear()
    });
    finds(
        "error",
        "ADD COLUMN \\\"label\\\" character varying(50)",
        |c| {
            c.lookup().columns.remove(1);
        },
    );
    finds("error", "cannot be written", |c| {
        c.lookup().columns[1].generated = true
    });
    finds("warning", "more than 50 characters", |c| {
        c.table().columns[2] = column("label", "character varying(100)", true);
    });
    finds(
        "warning",
        "ALTER COLUMN \\\"label\\\" TYPE character varying(100);",
        |c| c.table().columns[2] = column("label", "character varying(100)", true),
    );
    finds("error", "is boolean, the source's is", |c| {
        c.table().columns[2] = column("label", "timestamp with time zone", true);
        c.lookup().columns[1] = lookup_column("label", "boolean");
    });
    finds(
        "warning",
        "values that s.short does not take are rejected",
        |c| {
            c.lookup().columns[1].declared_type_name = "s.short".to_owned();
        },
    );
    finds("warning", "more than 20 characters", |c| {
        c.lookup().columns[1] = LookupColumn {
            declared_type_name: "s.short".to_owned(),
            ..lookup_column("label", "character varying(20)")
        };
    });
    finds("warning", "may be NULL at the source", |c| {
        c.table().columns[2].not_null = false
    });
    finds("error", "no source column fills it", |c| {
        c.lookup().columns.push(lookup_column("more", "integer"))
    });
    let unfilled = |c: &mut Case| {
        c.lookup().triggers = strings(&["trigger fill"]);
        c.lookup().columns.push(lookup_column("more", "integer"));
    };
    finds("warning", "no trigger fills it", unfilled);
    assert!(is_ready(&found_after(unfilled)));
    finds("error", "the name a$cdc$b holds $cdc$", |c| {
        c.lookup().columns[1].type_name = "a$cdc$b".to_owned();
    });
    finds("error", "(synced_at) does not exist", |c| {
        c.lookup().columns.pop();
    });
    finds("warning", "has no time zone", |c| {
        c.lookup().columns[3] = lookup_column("updated_at", "timestamp without time zone");
    });
    finds("error", "not timestamptz", |c| {
        c.lookup().columns[3] = lookup_column("updated_at", "text")
    });
}
