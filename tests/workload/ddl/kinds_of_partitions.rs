//! DDL of partitions, none of which PostgreSQL puts into the stream of the root.

use super::script::Script;
use super::tables::{OF_PARTS, partition_sql};

/// One partition is emptied.
pub fn truncated(script: &mut Script) {
    let schema = script.shape.schema.clone();
    for _ in 0..script.rng.u32(1..3) {
        let region = script.pick(&script.shape.regions.clone());
        script
            .one(format!("TRUNCATE {schema}.parts_{region}"))
            .blurred(OF_PARTS);
        script.maybe_rest();
    }
}

/// A partition leaves with its rows, is changed by itself, and comes back; or another one is made in its place.
pub fn detached(script: &mut Script) {
    let (schema, number) = (script.shape.schema.clone(), script.number.clone());
    let region = script.pick(&["b", "c"]);
    let (canonical, mut without) = (script.shape.clone(), script.shape.clone());
    without.regions.retain(|other| *other != region);
    let leaf = format!("{schema}.parts_{region}");
    script
        .to(
            without,
            vec![format!("ALTER TABLE {schema}.parts DETACH PARTITION {leaf}")],
        )
        .blurred(OF_PARTS);
    script.maybe_rest();
    script.one(format!(
        "UPDATE {leaf} SET label = 'alone {number}' WHERE id % 3 = 0"
    ));
    script.one(format!("DELETE FROM {leaf} WHERE id % 5 = 0"));
    let back = if script.chance(2) {
        vec![format!(
            "ALTER TABLE {schema}.parts ATTACH PARTITION {leaf} FOR VALUES IN ('{region}')"
        )]
    } else {
        vec![format!("DROP TABLE {leaf}"), partition_sql(&schema, region)]
    };
    script.to(canonical, back).blurred(OF_PARTS);
}

/// A table with rows becomes a partition, and leaves again.
pub fn attached(script: &mut Script) {
    let (schema, number) = (script.shape.schema.clone(), script.number.clone());
    let (canonical, mut with) = (script.shape.clone(), script.shape.clone());
    with.regions.push("d");
    let leaf = format!("{schema}.parts_d_{number}");
    let make = vec![
        format!("CREATE TABLE {leaf} (LIKE {schema}.parts INCLUDING ALL)"),
        format!(
            "INSERT INTO {leaf} (id, region, code, label) SELECT n, 'd', 'D' || n, 'came along {number}' FROM generate_series(1, 5) n"
        ),
    ];
    script.keep(make);
    script
        .to(
            with,
            vec![format!(
                "ALTER TABLE {schema}.parts ATTACH PARTITION {leaf} FOR VALUES IN ('d')"
            )],
        )
        .blurred(OF_PARTS);
    script.maybe_rest();
    let leave = if script.chance(2) {
        vec![format!("DROP TABLE {leaf}")]
    } else {
        vec![
            format!("ALTER TABLE {schema}.parts DETACH PARTITION {leaf}"),
            format!("DROP TABLE {leaf}"),
        ]
    };
    script.to(canonical, leave).blurred(OF_PARTS);
}
