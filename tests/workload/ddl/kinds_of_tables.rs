//! DDL that puts another table, other rows or another file under the name of the ordinary table.

use super::changes::{insert_into, item_change};
use super::script::{Place, Script};
use super::tables::{OF_ITEMS, Shape, items_sql};

/// Two tables exchange their names; the new one has other rows. Changes of the old one go on under
/// its new name, where they concern nobody.
pub fn swapped(script: &mut Script) {
    let (schema, items, number) = (
        script.shape.schema.clone(),
        script.shape.items.clone(),
        script.number.clone(),
    );
    let new = format!("{schema}.items_{number}");
    let old = format!("{schema}.items_old_{number}");
    let mut make = vec![
        items_sql(&schema, &new),
        format!(
            "INSERT INTO {new} (id, tag, code, label, name, amount, deleted_at, mood) SELECT id, tag, code, 'draft ' || id, coalesce(name, 'N'), coalesce(amount, 0), deleted_at, mood \
             FROM {items} WHERE id % 2 = 0"
        ),
    ];
    let of_old = Shape {
        items: old.clone(),
        ..script.shape.clone()
    };
    let mut exchange = vec![
        format!("ALTER TABLE {items} RENAME TO items_old_{number}"),
        format!("ALTER TABLE {new} RENAME TO items"),
    ];
    if script.chance(2) {
        exchange.push(item_change(&mut script.rng, &of_old));
    }
    if script.chance(2) {
        exchange.push(item_change(&mut script.rng, &script.shape));
    }
    if script.chance(2) {
        script.keep(make);
    } else {
        make.append(&mut exchange);
        exchange = make;
    }
    script
        .keep(exchange)
        .unstreamed(OF_ITEMS)
        .witness(Some(of_old.clone()));
    for _ in 0..script.rng.u32(0..3) {
        let change = item_change(&mut script.rng, &of_old);
        script.one(change);
    }
    script.maybe_rest();
    if script.chance(2) {
        let of_new = Shape {
            items: new.clone(),
            ..script.shape.clone()
        };
        script
            .keep(vec![
                format!("ALTER TABLE {items} RENAME TO items_{number}"),
                format!("ALTER TABLE {old} RENAME TO items"),
            ])
            .unstreamed(OF_ITEMS)
            .witness(Some(of_new));
        script.one(format!("DROP TABLE {new}"));
    } else {
        script.one(format!("DROP TABLE {old}"));
    }
}

/// Dropped, and made with other rows, at once or after a while.
pub fn made_again(script: &mut Script) {
    let (canonical, items) = (script.shape.clone(), script.shape.items.clone());
    let schema = canonical.schema.clone();
    let mut make = vec![items_sql(&schema, &items)];
    for _ in 0..script.rng.u32(0..6) {
        make.push(insert_into(&mut script.rng, &canonical));
    }
    if script.chance(2) {
        // Changes meanwhile go to a table that is only there to be changed.
        let nowhere = Shape {
            items: format!("{}_away.items", canonical.schema),
            ..canonical.clone()
        };
        let leave = vec![
            format!("DROP TABLE {items}"),
            items_sql(&schema, &nowhere.items),
        ];
        script.to(nowhere.clone(), leave).witness(None);
        script.maybe_rest();
        make.push(format!("DROP TABLE {}", nowhere.items));
    } else {
        make.insert(0, format!("DROP TABLE {items}"));
    }
    script
        .to(canonical, make)
        .unstreamed(OF_ITEMS)
        .witness(None);
}

/// In another schema, or under another name, and back.
pub fn away(script: &mut Script) {
    let canonical = script.shape.clone();
    let (schema, number) = (canonical.schema.clone(), script.number.clone());
    let (items, leave, back) = if script.chance(2) {
        (
            format!("{schema}_away.items"),
            format!("SET SCHEMA {schema}_away"),
            format!("SET SCHEMA {schema}"),
        )
    } else {
        (
            format!("{schema}.items_away_{number}"),
            format!("RENAME TO items_away_{number}"),
            "RENAME TO items".to_owned(),
        )
    };
    let there = Shape {
        items: items.clone(),
        ..canonical.clone()
    };
    script.to(
        there,
        vec![format!("ALTER TABLE {} {leave}", canonical.items)],
    );
    script.maybe_rest();
    script.to(canonical, vec![format!("ALTER TABLE {items} {back}")]);
}

/// Emptied, and filled in the same transaction or later.
pub fn truncated(script: &mut Script) {
    for _ in 0..script.rng.u32(1..4) {
        let parts = script.shape.parts();
        let items = script.shape.items.clone();
        let tables = script.pick(&[0, 1, 2]);
        let mut sql = vec![match tables {
            0 => format!("TRUNCATE {items}"),
            1 => format!("TRUNCATE {parts}"),
            _ => format!("TRUNCATE {items}, {parts}"),
        }];
        for _ in 0..script.rng.u32(0..6) {
            sql.push(insert_into(&mut script.rng, &script.shape));
        }
        script.keep(sql);
    }
}

/// The same rows in another file.
pub fn rewritten(script: &mut Script) {
    let items = script.shape.items.clone();
    for _ in 0..script.rng.u32(1..3) {
        if script.chance(2) {
            script.one(format!("VACUUM FULL {items}")).at(Place::Bare);
        } else {
            script.one(format!(
                "DO $$ BEGIN EXECUTE (SELECT format('CLUSTER {items} USING %I', c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 WHERE i.indrelid = '{items}'::regclass AND i.indisprimary); END $$"
            ));
        }
    }
}

/// What makes the stream describe the table again, although nothing has changed for it.
pub fn described_again(script: &mut Script) {
    let (schema, items) = (script.shape.schema.clone(), script.shape.items.clone());
    let number = script.number.clone();
    for _ in 0..script.rng.u32(1..4) {
        match script.rng.u32(0..7) {
            0 => script.one(format!("ANALYZE {items}")),
            1 => script
                .one(format!("VACUUM (ANALYZE) {items}"))
                .at(Place::Bare),
            2 => script.one(format!("GRANT SELECT ON {items} TO PUBLIC")),
            3 => script.one(format!("COMMENT ON TABLE {items} IS 'number {number}'")),
            4 => script.one(format!("ALTER TABLE {items} SET (fillfactor = 90)")),
            5 => script
                .one(format!("REINDEX TABLE CONCURRENTLY {items}"))
                .at(Place::Bare),
            _ => script.keep(vec![
                format!("CREATE INDEX by_name_{number} ON {items} (name)"),
                format!("DROP INDEX {schema}.by_name_{number}"),
            ]),
        };
    }
}

/// DDL that is taken back, with changes under it and after it.
pub fn rolled_back(script: &mut Script) {
    let items = script.shape.items.clone();
    let mut altered = script.shape.clone();
    let (ddl, under) = match script.rng.u32(0..4) {
        0 => {
            altered.label = Some("label_was".to_owned());
            (
                format!("ALTER TABLE {items} RENAME label TO label_was"),
                true,
            )
        }
        1 => {
            altered.name = None;
            (format!("ALTER TABLE {items} DROP COLUMN name"), true)
        }
        2 => (format!("ALTER TABLE {items} REPLICA IDENTITY FULL"), true),
        _ => (format!("TRUNCATE {items}; DROP TABLE {items}"), false),
    };
    let mut sql = vec!["SAVEPOINT s".to_owned(), ddl];
    if under {
        sql.push(item_change(&mut script.rng, &altered));
    }
    sql.push("ROLLBACK TO SAVEPOINT s".to_owned());
    sql.push(item_change(&mut script.rng, &script.shape));
    script.keep(sql);
}

/// In the middle of a transaction that `cdc` takes in chunks.
pub fn altered_in_a_large_transaction(script: &mut Script) {
    let items = script.shape.items.clone();
    let number = script.number.clone();
    let fill = |from: u32| {
        format!(
            "INSERT INTO {items} (id, tag, code, label, name, amount) SELECT n, n, 'B' || n, repeat('l', 50), repeat('n', 50), n \
             FROM generate_series({from}, {from} + 29999) n"
        )
    };
    let ddl = match script.rng.u32(0..4) {
        0 => vec![
            format!("ALTER TABLE {items} RENAME label TO label_or_name"),
            format!("ALTER TABLE {items} RENAME name TO label"),
            format!("ALTER TABLE {items} RENAME label_or_name TO name"),
        ],
        1 => vec![format!("ALTER TABLE {items} ALTER amount TYPE bigint")],
        2 => vec![format!("ALTER TABLE {items} ADD COLUMN extra_{number} int")],
        _ => vec![format!("TRUNCATE {items}")],
    };
    let mut sql = vec![fill(3_000_000)];
    sql.extend(ddl);
    sql.push(fill(3_100_000));
    sql.push(format!("DELETE FROM {items} WHERE id >= 3000000"));
    script.keep(sql).unstreamed(OF_ITEMS);
    script.one(format!(
        "ALTER TABLE {items} ALTER amount TYPE int, DROP COLUMN IF EXISTS extra_{number}"
    ));
}

/// Somebody takes the table out of the publication, and perhaps puts it back: its changes are in no
/// stream meanwhile.
pub fn taken_out(script: &mut Script) {
    let items = script.shape.items.clone();
    script
        .one(format!(
            "DO $$ BEGIN IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
             WHERE pubname = 'cdc' AND prrelid = '{items}'::regclass) THEN ALTER PUBLICATION cdc DROP TABLE {items}; END IF; END $$"
        ))
        .blurred(OF_ITEMS);
    script.maybe_rest();
    if script.chance(2) {
        script
            .one(format!(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
                 WHERE pubname = 'cdc' AND prrelid = '{items}'::regclass) THEN ALTER PUBLICATION cdc ADD TABLE {items}; END IF; END $$"
            ))
            .blurred(OF_ITEMS);
    }
}
