//! DDL of columns of the ordinary table.

use super::changes::item_change;
use super::script::Script;
use super::tables::{MOOD, OF_ITEMS, Shape, Which};

const ITEMS_ONLY: Which = [true, false, false];

/// One of the columns that a read model needs.
fn column(shape: &mut Shape, which: usize) -> &mut Option<String> {
    match which {
        0 => &mut shape.label,
        1 => &mut shape.name,
        2 => &mut shape.amount,
        _ => &mut shape.deleted_at,
    }
}

/// Away and back, with other transactions in between.
pub fn renamed(script: &mut Script) {
    let items = script.shape.items.clone();
    let which = script.rng.usize(0..4);
    let canonical = script.shape.clone();
    let mut away = canonical.clone();
    let name = column(&mut away, which).take().unwrap();
    let other = format!("{name}_was");
    *column(&mut away, which) = Some(other.clone());
    script.to(
        away,
        vec![format!("ALTER TABLE {items} RENAME {name} TO {other}")],
    );
    script.maybe_rest();
    script.to(
        canonical,
        vec![format!("ALTER TABLE {items} RENAME {other} TO {name}")],
    );
}

/// Away and back in one transaction, with a change in between: the stream describes the table three
/// times.
pub fn renamed_inside(script: &mut Script) {
    let items = script.shape.items.clone();
    let mut away = script.shape.clone();
    let which = script.rng.usize(0..4);
    let name = column(&mut away, which).take().unwrap();
    *column(&mut away, which) = Some("elsewhere".to_owned());
    let mut sql = vec![format!("ALTER TABLE {items} RENAME {name} TO elsewhere")];
    for _ in 0..script.rng.u32(1..3) {
        sql.push(item_change(&mut script.rng, &away));
    }
    sql.push(format!("ALTER TABLE {items} RENAME elsewhere TO {name}"));
    script.keep(sql);
}

/// Two columns exchange their names; types and order stay as they are.
pub fn swapped(script: &mut Script) {
    let items = script.shape.items.clone();
    for _ in 0..script.rng.u32(1..3) {
        let sql = vec![
            format!("ALTER TABLE {items} RENAME label TO label_or_name"),
            format!("ALTER TABLE {items} RENAME name TO label"),
            format!("ALTER TABLE {items} RENAME label_or_name TO name"),
        ];
        script.keep(sql).unstreamed(ITEMS_ONLY);
    }
}

/// Dropped and added under the same name, at once or in two steps, with a default for all rows or
/// filled.
pub fn made_again(script: &mut Script) {
    let items = script.shape.items.clone();
    let number = script.number.clone();
    let (which, kind) = script.pick(&[(0, "varchar(50)"), (1, "varchar(50)"), (2, "int")]);
    let canonical = script.shape.clone();
    let mut without = canonical.clone();
    let name = column(&mut without, which).take().unwrap();
    let default = if which == 2 {
        "7".to_owned()
    } else {
        format!("'again {number}'")
    };
    let drop = format!("ALTER TABLE {items} DROP COLUMN {name}");
    let mut add = vec![match script.rng.u32(0..3) {
        0 => format!("ALTER TABLE {items} ADD COLUMN {name} {kind} NOT NULL DEFAULT {default}"),
        // Not the same for all rows at once, so the table is rewritten.
        1 if which != 2 => {
            format!(
                "ALTER TABLE {items} ADD COLUMN {name} {kind} NOT NULL DEFAULT 'v ' || clock_timestamp()"
            )
        }
        _ => format!("ALTER TABLE {items} ADD COLUMN {name} {kind}"),
    }];
    let in_steps = script.chance(2);
    if in_steps {
        script.to(without, vec![drop]);
        script.maybe_rest();
    } else {
        add.insert(0, drop);
    }
    if script.chance(2) {
        add.push(item_change(&mut script.rng, &canonical));
    }
    // Where a number is missing the columns of the lookups take NULL.
    let of = if which == 2 { OF_ITEMS } else { ITEMS_ONLY };
    script.to(canonical, add).unstreamed(of);
    if script.chance(2) {
        script.one(format!(
            "UPDATE {items} SET {name} = {default} WHERE {name} IS NULL"
        ));
    }
}

/// Columns that nobody reads come and go, one of them with a rewrite of the table.
pub fn added(script: &mut Script) {
    let items = script.shape.items.clone();
    let number = script.number.clone();
    let kind = script.pick(&[
        "text",
        "int NOT NULL DEFAULT 5",
        "text DEFAULT clock_timestamp()::text",
        "int GENERATED ALWAYS AS (id * 2) STORED",
    ]);
    script.one(format!(
        "ALTER TABLE {items} ADD COLUMN extra_{number} {kind}"
    ));
    script.one(format!("ALTER TABLE {items} ALTER name DROP NOT NULL"));
    script.one(format!(
        "ALTER TABLE {items} RENAME extra_{number} TO more_{number}"
    ));
    script.one(format!(
        "UPDATE {items} SET name = 'N' WHERE name IS NULL; ALTER TABLE {items} ALTER name SET NOT NULL"
    ));
    script.one(format!("ALTER TABLE {items} DROP COLUMN more_{number}"));
}

/// The key under its name is another column, with other values in every row.
pub fn key_made_again(script: &mut Script) {
    let (items, number) = (script.shape.items.clone(), script.number.clone());
    script
        .keep(vec![
            format!("ALTER TABLE {items} RENAME code TO code_{number}"),
            format!(
                "ALTER TABLE {items} ALTER code_{number} DROP NOT NULL, ADD COLUMN code varchar(20)"
            ),
            format!("UPDATE {items} SET code = reverse(code_{number})"),
            format!("ALTER TABLE {items} ALTER code SET NOT NULL, DROP COLUMN code_{number}"),
            format!("CREATE UNIQUE INDEX ON {items} (code) WHERE deleted_at IS NULL"),
        ])
        .unstreamed(OF_ITEMS);
}

/// Rows that were deleted softly live again; of several with one code one stays.
pub fn soft_delete_made_again(script: &mut Script) {
    let items = script.shape.items.clone();
    script
        .keep(vec![
            format!("ALTER TABLE {items} DROP COLUMN deleted_at"),
            format!("ALTER TABLE {items} ADD COLUMN deleted_at timestamptz"),
            format!(
                "DELETE FROM {items} d WHERE EXISTS (SELECT FROM {items} o WHERE o.code = d.code AND o.id < d.id)"
            ),
            format!("CREATE UNIQUE INDEX ON {items} (code) WHERE deleted_at IS NULL"),
        ])
        .unstreamed(OF_ITEMS);
}

/// Another type or length that the rows fit as they are stored.
pub fn widened(script: &mut Script) {
    let items = script.shape.items.clone();
    let column = script.pick(&["label", "name"]);
    for _ in 0..script.rng.u32(1..3) {
        let to = script.pick(&["text", "varchar(100)", "varchar"]);
        script.one(format!("ALTER TABLE {items} ALTER {column} TYPE {to}"));
        script.maybe_rest();
    }
    script.one(format!(
        "ALTER TABLE {items} ALTER {column} TYPE varchar(50)"
    ));
}

/// Another type for which every row is written again; the values look the same.
pub fn rewritten(script: &mut Script) {
    let items = script.shape.items.clone();
    let (column, there, back) = script.pick(&[
        ("amount", "bigint", "int"),
        ("amount", "numeric", "int"),
        ("amount", "text", "int USING amount::int"),
        (
            "label",
            "text COLLATE \"C\"",
            "varchar(50) COLLATE \"default\"",
        ),
        ("id", "bigint", "int"),
        ("code", "text", "varchar(20)"),
    ]);
    script.one(format!("ALTER TABLE {items} ALTER {column} TYPE {there}"));
    script.maybe_rest();
    script.one(format!("ALTER TABLE {items} ALTER {column} TYPE {back}"));
}

/// A label of an enum under another name: every row's text is another one. It may come back before
/// anybody has looked.
pub fn label_renamed(script: &mut Script) {
    let (schema, canonical) = (script.shape.schema.clone(), script.shape.clone());
    let renamed = Shape {
        mood: "quiet",
        ..canonical.clone()
    };
    for (shape, from, to) in [(renamed, MOOD, "quiet"), (canonical, "quiet", MOOD)] {
        let rename = format!("ALTER TYPE {schema}.mood RENAME VALUE '{from}' TO '{to}'");
        script.to(shape, vec![rename]).blurred([false, true, false]);
        script.maybe_rest();
    }
}

/// A rewrite that changes what the rows say: names, numbers and types stay, so the stream goes on
/// in new values beside old ones.
pub fn values_rewritten(script: &mut Script) {
    let items = script.shape.items.clone();
    let how = script.pick(&["upper(name)", "reverse(name)", "left(name, 3)"]);
    script
        .one(format!(
            "ALTER TABLE {items} ALTER name TYPE varchar(50) USING {how}"
        ))
        .blurred(ITEMS_ONLY);
}
