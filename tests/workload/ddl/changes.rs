//! Changes of rows, as SQL that fits the shape which the tables have at that moment and never
//! fails.

use fastrand::Rng;

use super::tables::Shape;

/// Ids and codes are few, so that they come again after their rows are gone.
const IDS: u32 = 80;
const CODES: u32 = 60;

/// A new value.
fn text(rng: &mut Rng, kind: &str) -> String {
    let number = rng.u32(0..100_000);
    match rng.u32(0..8) {
        0 => format!("'{kind} O''Brien | {number}'"),
        1 => format!("E'{kind} Zoë \\\\ \\t {number}'"),
        _ => format!("'{kind} {number}'"),
    }
}

/// Some row's id, chosen by the seed and not by the server.
fn some(rng: &mut Rng, table: &str, which: &str) -> String {
    let salt = rng.u32(..);
    format!("(SELECT id FROM {table} WHERE {which} ORDER BY md5(id::text || '{salt}'), id LIMIT 1)")
}

/// One to three random changes of either table.
pub fn some_changes(rng: &mut Rng, shape: &Shape) -> Vec<String> {
    (0..rng.u32(1..4))
        .map(|_| {
            if rng.u32(0..3) == 0 {
                part_change(rng, shape)
            } else {
                item_change(rng, shape)
            }
        })
        .collect()
}

/// A random change of the ordinary table.
pub fn item_change(rng: &mut Rng, shape: &Shape) -> String {
    let table = &shape.items;
    let live = shape.live();
    let row = some(rng, table, &live);
    match (rng.u32(0..100), &shape.deleted_at) {
        (0..=19, _) => insert_into(rng, shape),
        (20..=24, _) => update(rng, shape, &live),
        (25..=49, _) => update(rng, shape, &format!("id = {row}")),
        (50..=59, _) => recode(rng, shape, &row),
        (60..=66, _) => swap(rng, shape),
        (67..=72, _) => format!("DELETE FROM {table} WHERE id = {row}"),
        (73..=77, _) => {
            let (id, tag) = (rng.u32(0..IDS), rng.u32(1_000_000..2_000_000_000));
            format!(
                "UPDATE {table} SET id = {id}, tag = {tag} WHERE id = {row} AND NOT EXISTS (SELECT FROM {table} WHERE id = {id} OR tag = {tag})"
            )
        }
        (78..=87, Some(deleted_at)) => {
            format!("UPDATE {table} SET {deleted_at} = now() WHERE id = {row}")
        }
        (88..=95, Some(deleted_at)) => {
            let dead = some(
                rng,
                &format!("{table} d"),
                &format!(
                    "NOT ({live}) AND NOT EXISTS (SELECT FROM {table} l WHERE l.code = d.code AND l.{live})"
                ),
            );
            format!("UPDATE {table} SET {deleted_at} = NULL WHERE id = {dead}")
        }
        _ => format!("UPDATE {table} SET tag = tag WHERE id = {row}"),
    }
}

/// The columns that are there, with new values.
fn values(rng: &mut Rng, shape: &Shape) -> Vec<(String, String)> {
    let mut values = Vec::new();
    if let Some(label) = &shape.label {
        values.push((label.clone(), text(rng, "L")));
    }
    if let Some(name) = &shape.name {
        values.push((name.clone(), text(rng, "N")));
    }
    if let Some(amount) = &shape.amount {
        values.push((amount.clone(), rng.u32(0..100_000).to_string()));
    }
    let mood = if rng.bool() { shape.mood } else { "merry" };
    values.push(("mood".to_owned(), format!("'{mood}'")));
    values
}

/// A new row of the ordinary table.
pub fn insert_into(rng: &mut Rng, shape: &Shape) -> String {
    let (id, tag, code) = (
        rng.u32(0..IDS),
        rng.u32(1_000_000..2_000_000_000),
        rng.u32(0..CODES),
    );
    insert_row(rng, shape, id, tag, &format!("C{code:02}"))
}

/// A row of the ordinary table that cannot have been there.
pub fn new_item(rng: &mut Rng, shape: &Shape) -> String {
    let number = rng.u32(10_000..1_000_000);
    insert_row(rng, shape, number, number, &format!("W{number}"))
}

/// A row of the partitioned table that cannot have been there.
pub fn new_part(rng: &mut Rng, shape: &Shape) -> String {
    let number = rng.u32(10_000..1_000_000);
    let region = shape.regions[rng.usize(0..shape.regions.len())];
    let table = shape.parts();
    format!(
        "INSERT INTO {table} (id, region, code, label) VALUES ({number}, '{region}', 'W{number}', 'w') ON CONFLICT DO NOTHING"
    )
}

fn insert_row(rng: &mut Rng, shape: &Shape, id: u32, tag: u32, code: &str) -> String {
    let table = &shape.items;
    let (mut columns, mut row) = (String::new(), String::new());
    for (column, value) in values(rng, shape) {
        columns.push_str(&format!(", {column}"));
        row.push_str(&format!(", {value}"));
    }
    let live = shape.live();
    format!(
        "INSERT INTO {table} (id, tag, code{columns}) SELECT {id}, {tag}, '{code}'{row} \
         WHERE NOT EXISTS (SELECT FROM {table} WHERE id = {id} OR tag = {tag} OR (code = '{code}' AND {live}))"
    )
}

fn update(rng: &mut Rng, shape: &Shape, which: &str) -> String {
    let values = values(rng, shape);
    let number = rng.usize(0..=values.len());
    let mut set: Vec<String> = values
        .into_iter()
        .cycle()
        .skip(number)
        .take(rng.usize(1..3))
        .map(|(column, value)| format!("{column} = {value}"))
        .collect();
    set.dedup();
    if set.is_empty() {
        set.push("tag = tag".to_owned());
    }
    format!(
        "UPDATE {} SET {} WHERE {which}",
        shape.items,
        set.join(", ")
    )
}

/// A row gets a code that no live row has.
fn recode(rng: &mut Rng, shape: &Shape, row: &str) -> String {
    let (table, live) = (&shape.items, shape.live());
    let code = rng.u32(0..CODES);
    format!(
        "UPDATE {table} SET code = 'C{code:02}' WHERE id = {row} AND NOT EXISTS (SELECT FROM {table} WHERE code = 'C{code:02}' AND {live})"
    )
}

/// Two rows pass their codes on, or a row leaves and another one takes its code over.
fn swap(rng: &mut Rng, shape: &Shape) -> String {
    let (table, live) = (&shape.items, shape.live());
    let salt = rng.u32(..);
    let end = match (rng.u32(0..3), &shape.deleted_at) {
        (0, _) => "DELETE FROM {table} WHERE id = a.id; UPDATE {table} SET code = a.code WHERE id = b.id;".to_owned(),
        (1, Some(deleted_at)) => format!(
            "UPDATE {{table}} SET {deleted_at} = now() WHERE id = a.id; UPDATE {{table}} SET code = a.code WHERE id = b.id;"
        ),
        _ => "UPDATE {table} SET code = '~' WHERE id = a.id; UPDATE {table} SET code = a.code WHERE id = b.id; \
              UPDATE {table} SET code = b.code WHERE id = a.id;"
            .to_owned(),
    };
    let end = end.replace("{table}", table);
    format!(
        "DO $$ DECLARE a record; b record; BEGIN \
         SELECT id, code INTO a FROM {table} WHERE {live} ORDER BY md5(id::text || '{salt}'), id LIMIT 1; \
         SELECT id, code INTO b FROM {table} WHERE {live} AND id <> a.id ORDER BY md5('{salt}' || id::text), id LIMIT 1; \
         IF b.id IS NOT NULL THEN {end} END IF; END $$"
    )
}

/// Brings the ordinary table up to so many rows beside those that come and go.
pub fn refill(rng: &mut Rng, shape: &Shape, rows: u32) -> String {
    let (table, salt) = (&shape.items, rng.u32(..));
    format!(
        "INSERT INTO {table} (id, tag, code, label, name, amount) \
         SELECT 1000 + n, 1000 + n, 'R' || n, 'L ' || n + {salt}, 'N ' || n + {salt}, n FROM generate_series(1, {rows}) n \
         WHERE NOT EXISTS (SELECT FROM {table} WHERE id = 1000 + n OR tag = 1000 + n OR (code = 'R' || n AND deleted_at IS NULL))"
    )
}

/// Brings the partitioned table up to some rows.
pub fn refill_parts(rng: &mut Rng, shape: &Shape) -> String {
    let (table, salt) = (shape.parts(), rng.u32(..));
    let regions = shape.regions.join("', '");
    format!(
        "INSERT INTO {table} (id, region, code, label) SELECT 1000 + n, region, 'R' || n, 'P ' || n + {salt} \
         FROM generate_series(1, 8) n, unnest(ARRAY['{regions}']) region ON CONFLICT DO NOTHING"
    )
}

/// A random change of the partitioned table.
pub fn part_change(rng: &mut Rng, shape: &Shape) -> String {
    let table = shape.parts();
    let region = shape.regions[rng.usize(0..shape.regions.len())];
    let other = shape.regions[rng.usize(0..shape.regions.len())];
    let (id, code, label) = (rng.u32(0..IDS), rng.u32(0..CODES), text(rng, "P"));
    let row = some(rng, &table, &format!("region = '{region}'"));
    let this = format!("region = '{region}' AND id = {row}");
    match rng.u32(0..10) {
        0..=2 => format!(
            "INSERT INTO {table} (id, region, code, label) VALUES ({id}, '{region}', 'C{code:02}', {label}) ON CONFLICT DO NOTHING"
        ),
        3..=5 => format!("UPDATE {table} SET label = {label} WHERE {this}"),
        6 => format!(
            "UPDATE {table} SET code = 'C{code:02}' WHERE {this} AND NOT EXISTS \
             (SELECT FROM {table} WHERE region = '{region}' AND code = 'C{code:02}')"
        ),
        7 => format!(
            "UPDATE {table} p SET region = '{other}' WHERE {this} AND NOT EXISTS \
             (SELECT FROM {table} o WHERE o.region = '{other}' AND (o.id = p.id OR o.code = p.code))"
        ),
        8 => format!("DELETE FROM {table} WHERE {this}"),
        _ => format!("UPDATE {table} SET label = {label} WHERE region = '{region}'"),
    }
}
