//! What comparisons and resyncs have found, for people: one line a read model, then keys.

use serde_json::Value;

use crate::sql::ident;

/// How more keys of a comparison are named.
const MORE: &str = "--limit N names N of them";

/// Kinds of differences, as the result names them.
const DIFFERENCES: [&str; 4] = ["missing", "extra", "different", "rejected"];

/// Whether a lookup differs from its source, rows that it does not take included.
pub(super) fn differs(result: &Value) -> bool {
    models(result).any(|(_, found)| DIFFERENCES.iter().any(|kind| count(found, kind) > 0))
}

/// What a comparison found.
pub(super) fn comparison(result: &Value) -> String {
    let mut text = String::new();
    for (name, found) in models(result) {
        let [missing, extra, different, same] =
            ["missing", "extra", "different", "same"].map(|kind| count(found, kind));
        text.push_str(&format!(
            "{name}: {missing} missing, {extra} extra, {different} different, {same} right"
        ));
        if let Some(more) = not_shown(found) {
            text.push_str(&format!(", {more}"));
        }
        text.push('\n');
        for kind in ["missing", "extra", "different"] {
            let keys = found.get("keys").and_then(|keys| keys.get(kind));
            let keys = strings(keys).map(str::to_owned).collect();
            push_rows(&mut text, found, (kind, MORE), keys);
        }
        push_rows(&mut text, found, ("rejected", MORE), rejections(found));
        for note in strings(found.get("notes")) {
            text.push_str(&format!("  note: {note}\n"));
        }
    }
    text
}

/// What a resync did; the bookkeeping in `schema` names all that is rejected.
pub(super) fn resync(result: &Value, schema: &str) -> String {
    let more = format!("SELECT * FROM {}.rejected names all", ident(schema));
    let mut text = String::new();
    for (name, found) in models(result) {
        let [total, inserted, updated, deleted, unchanged] =
            ["total", "inserted", "updated", "deleted", "unchanged"].map(|kind| count(found, kind));
        text.push_str(&format!(
            "{name}: {total} rows compared; repaired: {inserted} missing, {updated} different, {deleted} extra; \
             {unchanged} were right"
        ));
        if let Some(more) = not_shown(found) {
            text.push_str(&format!("; {more}"));
        }
        text.push('\n');
        push_rows(&mut text, found, ("rejected", &more), rejections(found));
    }
    text
}

fn models(result: &Value) -> impl Iterator<Item = (&String, &Value)> {
    result.as_object().into_iter().flatten()
}

fn count(found: &Value, name: &str) -> i64 {
    found.get(name).and_then(Value::as_i64).unwrap_or(0)
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Live rows that the lookup does not show, if there are any: rows that it does not take, and rows
/// whose key another row has. Then rows that a plain comparison cannot judge.
fn not_shown(found: &Value) -> Option<String> {
    let counts = [
        ("rejected", "rejected"),
        ("waiting", "duplicate"),
        ("changing", "changed meanwhile"),
    ];
    let counts = counts.map(|(kind, word)| (count(found, kind), word));
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The rejected rows that are named, each with the server's reason.
fn rejections(found: &Value) -> Vec<String> {
    let rows = found.get("rejections").and_then(Value::as_array);
    rows.into_iter().flatten().map(rejection).collect()
}

fn rejection(row: &Value) -> String {
    let first_of = |names: [&str; 2]| names.iter().find_map(|name| row.get(name)?.as_str());
    let name = first_of(["key", "identity"]).unwrap_or("-");
    let object = first_of(["constraint", "column"]).unwrap_or_default();
    let sqlstate = row
        .get("sqlstate")
        .and_then(Value::as_str)
        .unwrap_or_default();
    format!("{name} ({})", format!("{sqlstate} {object}").trim_end())
}

/// `how` is where the rest is named.
fn push_rows(text: &mut String, found: &Value, (kind, how): (&str, &str), rows: Vec<String>) {
    for row in &rows {
        text.push_str(&format!("  {kind}: {row}\n"));
    }
    let more = count(found, kind).saturating_sub(i64::try_from(rows.len()).unwrap_or(0));
    if more > 0 {
        text.push_str(&format!("  {kind}: {more} more ({how})\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_that_are_not_shown_are_told_and_rejected_ones_are_differences() {
        let rejected = json!({"key": null, "identity": "7", "sqlstate": "22001", "constraint": null, "column": "code"});
        let found = json!({"public.l": {
            "missing": 0, "extra": 1, "different": 0, "same": 2, "rejected": 3, "waiting": 1,
            "keys": {"extra": ["Z"], "rejected": ["7"]}, "rejections": [rejected],
        }});
        assert_eq!(
            comparison(&found),
            "public.l: 0 missing, 1 extra, 0 different, 2 right, 3 rejected, 1 duplicate\n  extra: Z\n  \
             rejected: 7 (22001 code)\n  rejected: 2 more (--limit N names N of them)\n"
        );
        assert!(differs(&found));
        for (kind, expected) in [
            ("missing", true),
            ("rejected", true),
            ("same", false),
            ("waiting", false),
        ] {
            assert_eq!(differs(&json!({"public.l": {kind: 1}})), expected, "{kind}");
        }
    }

    #[test]
    fn a_resync_tells_what_it_repaired_and_what_the_lookup_does_not_take() {
        let done = json!({"total": 3, "inserted": 1, "updated": 0, "deleted": 0, "unchanged": 2});
        let text =
            "public.l: 3 rows compared; repaired: 1 missing, 0 different, 0 extra; 2 were right";
        assert_eq!(
            resync(&json!({"public.l": done}), "cdc"),
            format!("{text}\n")
        );
        let mut more = done;
        more["rejected"] = 3.into();
        more["rejections"] = json!([{"key": "LONG", "sqlstate": "23514", "constraint": "c"}]);
        assert_eq!(
            resync(&json!({"public.l": more}), "cdc"),
            format!(
                "{text}; 3 rejected\n  rejected: LONG (23514 c)\n  rejected: 2 more (SELECT * FROM \"cdc\".rejected names all)\n"
            )
        );
    }
}
