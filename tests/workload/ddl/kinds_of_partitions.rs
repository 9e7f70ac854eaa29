//! DDL of partitions and of their root, none of which PostgreSQL puts into the stream.

use super::script::Script;
use super::tables::{OF_PARTS, REGIONS, partition_sql, parts_sql};

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

/// A partition leaves with its rows, is changed by itself, and comes back; or another one is made
/// in its place.
pub fn detached(script: &mut Script) {
    let (schema, number) = (script.shape.schema.clone(), script.number.clone());
    let region = script.pick(&["b", "c"]);
    let (canonical, mut without) = (script.shape.clone(), script.shape.clone());
    without.regions.retain(|other| *other != region);
    let leaf = format!("{schema}.parts_{region}");
    script
        .to(
            without,
            vec![format!(
                "ALTER TABLE {schema}.parts DETACH PARTITION {leaf}"
            )],
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
        vec![
            format!("DROP TABLE {leaf}"),
            partition_sql(&script.shape.parts(), region),
        ]
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

/// Two partitioned tables exchange their names; the new one has other rows, and comes to stay or
/// leaves again. The old one is not changed: the stream describes a root again when its leaves are
/// altered, not when it is renamed.
pub fn swapped(script: &mut Script) {
    let (schema, parts, number) = (
        script.shape.schema.clone(),
        script.shape.parts(),
        script.number.clone(),
    );
    let new = format!("{parts}_{number}");
    let old = format!("{parts}_old_{number}");
    script.keep(vec![
        parts_sql(&new),
        format!(
            "INSERT INTO {new} (id, region, code, label) SELECT id, region, code, 'draft ' || id FROM {parts} WHERE id % 2 = 0"
        ),
    ]);
    script
        .keep(vec![
            format!("ALTER TABLE {parts} RENAME TO parts_old_{number}"),
            format!("ALTER TABLE {new} RENAME TO parts"),
        ])
        .unstreamed(OF_PARTS)
        .witness(None);
    script.maybe_rest();
    if script.chance(2) {
        script
            .keep(vec![
                format!("ALTER TABLE {parts} RENAME TO parts_{number}"),
                format!("ALTER TABLE {old} RENAME TO parts"),
            ])
            .unstreamed(OF_PARTS)
            .witness(None);
        script.one(format!("DROP TABLE {new}"));
        return;
    }
    let mut stay = vec![format!("DROP TABLE {old}")];
    for region in REGIONS {
        stay.push(format!(
            "ALTER TABLE {schema}.parts_{number}_{region} RENAME TO parts_{region}"
        ));
    }
    script.keep(stay);
}
