//! Whether a source column's values go into a lookup column.
//!
//! Values travel as text and are cast to the lookup column's type, so text is the judge of what
//! fits.

/// How well one type goes into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    /// Every value fits.
    Good,
    /// Some values may not; the sentence says which.
    Some(String),
    /// No value does.
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Text,
    Number,
    Time,
    Boolean,
    Json,
    Other,
}

fn family(bare: &str) -> Family {
    match bare {
        "text" | "character varying" | "bpchar" | "character" | "name" => Family::Text,
        "smallint" | "integer" | "bigint" | "numeric" | "real" | "double precision" => {
            Family::Number
        }
        "boolean" => Family::Boolean,
        "json" | "jsonb" => Family::Json,
        bare if bare == "date" || bare.starts_with("timestamp") => Family::Time,
        bare if bare == "citext" || bare.ends_with(".citext") => Family::Text,
        _ => Family::Other,
    }
}

/// How a source type (bare and with modifier) goes into a lookup's.
pub(super) fn fit(source: (&str, &str), lookup: (&str, &str)) -> Fit {
    let (from, to) = (family(source.0), family(lookup.0));
    if source.1 == lookup.1 {
        return Fit::Good;
    }
    match (from, to) {
        (_, Family::Text) => text(from, source, lookup),
        (Family::Text, Family::Json) => Fit::Some("text that is not JSON is rejected".to_owned()),
        (Family::Text, _) => Fit::Some(format!(
            "text that is not a value of type {} is rejected",
            lookup.1
        )),
        (Family::Number, Family::Number) => number(source, lookup),
        (Family::Time, Family::Time) => time(source, lookup),
        (Family::Json, Family::Json) => Fit::Good,
        (Family::Other, Family::Other) if source.0 == lookup.0 => Fit::Some(format!(
            "values that {} does not take are rejected",
            lookup.1
        )),
        (Family::Number, Family::Boolean) => {
            Fit::Some("values other than 0 and 1 are rejected".to_owned())
        }
        (Family::Number, Family::Json) if is_whole(source.0) => Fit::Good,
        (Family::Number, Family::Json) => {
            Fit::Some("NaN and infinite values are rejected".to_owned())
        }
        // `t` and `f` are no JSON and no numbers, and no time looks like one of these.
        (Family::Boolean, Family::Number | Family::Json | Family::Time)
        | (Family::Time, Family::Number | Family::Boolean | Family::Json) => Fit::Never,
        // A domain, an enum or a type of another name, a JSON number, the digits of a date: the
        // text may well be the same.
        _ => Fit::Some(format!(
            "values of {} that are not values of {} are rejected",
            source.1, lookup.1
        )),
    }
}

fn is_whole(bare: &str) -> bool {
    matches!(bare, "smallint" | "integer" | "bigint")
}

/// The numbers in a type's modifier: `numeric(10,2)` has 10 and 2.
fn modifier(type_name: &str) -> Vec<i64> {
    let inner = type_name
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let inner = inner.map_or("", |(inner, _)| inner);
    inner
        .split(',')
        .filter_map(|number| number.trim().parse().ok())
        .collect()
}

fn text(from: Family, source: (&str, &str), lookup: (&str, &str)) -> Fit {
    let Some(limit) = modifier(lookup.1).first().copied() else {
        return Fit::Good;
    };
    let longest = if from == Family::Text {
        modifier(source.1).first().copied()
    } else {
        None
    };
    match longest {
        Some(longest) if longest <= limit => Fit::Good,
        _ => Fit::Some(format!(
            "values of more than {limit} characters are rejected, but for blanks at their end, which are cut"
        )),
    }
}

fn number(source: (&str, &str), lookup: (&str, &str)) -> Fit {
    let rank = |bare: &str| match bare {
        "smallint" => 1,
        "integer" => 2,
        "bigint" => 3,
        _ => 4,
    };
    let fits = match (source.0, lookup.0) {
        ("numeric", "numeric") => {
            match (modifier(source.1).as_slice(), modifier(lookup.1).as_slice()) {
                (_, []) => true,
                ([digits, scale], [to_digits, to_scale]) => {
                    scale <= to_scale && digits - scale <= to_digits - to_scale
                }
                _ => false,
            }
        }
        ("real", "double precision") => true,
        ("smallint" | "integer" | "bigint" | "real" | "double precision", "numeric") => {
            modifier(lookup.1).is_empty()
        }
        ("smallint", "real") | ("smallint" | "integer", "double precision") => true,
        (from, to) => rank(to) < 4 && rank(from) <= rank(to),
    };
    if fits {
        Fit::Good
    } else {
        Fit::Some(format!(
            "values that {} cannot hold are rounded or rejected",
            lookup.1
        ))
    }
}

fn time(source: (&str, &str), lookup: (&str, &str)) -> Fit {
    let zoned = |bare: &str| bare.contains("with time zone");
    let decimals = |type_name: &str| match modifier(type_name).first() {
        Some(decimals) => *decimals,
        None if type_name == "date" => 0,
        None => 6,
    };
    if lookup.0 == "date" {
        Fit::Some("the time of day is cut off".to_owned())
    } else if decimals(source.1) > decimals(lookup.1) {
        Fit::Some(format!(
            "times are rounded to {} decimals of a second",
            decimals(lookup.1)
        ))
    } else if zoned(source.0) && !zoned(lookup.0) {
        Fit::Some("times are stored as of UTC, without their zone".to_owned())
    } else if !zoned(source.0) && zoned(lookup.0) {
        Fit::Some("times are taken as UTC".to_owned())
    } else {
        Fit::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit_of(source: &str, lookup: &str) -> Fit {
        let bare = |name: &str| match name.split_once('(') {
            Some((before, rest)) => format!("{before}{}", rest.split_once(')').unwrap().1),
            None => name.to_owned(),
        };
        fit((&bare(source), source), (&bare(lookup), lookup))
    }

    fn judge(source: &str, lookup: &str) -> &'static str {
        match fit_of(source, lookup) {
            Fit::Good => "good",
            Fit::Some(_) => "some",
            Fit::Never => "never",
        }
    }

    #[test]
    fn narrower_types_are_found() {
        for (source, lookup, expected) in [
            ("character varying(50)", "character varying(50)", "good"),
            ("character varying(100)", "character varying(50)", "some"),
            ("character varying(50)", "character varying(100)", "good"),
            ("text", "character varying(50)", "some"),
            ("character varying(50)", "text", "good"),
            ("text", "s.citext", "good"),
            ("integer", "bigint", "good"),
            ("bigint", "integer", "some"),
            ("numeric(10,2)", "numeric", "good"),
            ("numeric(10,2)", "numeric(12,2)", "good"),
            ("numeric(10,2)", "numeric(12,5)", "some"),
            ("numeric", "numeric(10,2)", "some"),
            ("real", "double precision", "good"),
            ("double precision", "real", "some"),
            ("integer", "text", "good"),
            ("uuid", "character varying(36)", "some"),
            ("text", "integer", "some"),
            ("boolean", "integer", "never"),
            ("timestamp with time zone", "boolean", "never"),
            (
                "timestamp with time zone",
                "timestamp without time zone",
                "some",
            ),
            ("timestamp with time zone", "date", "some"),
            ("json", "jsonb", "good"),
            ("s.mood", "s.mood", "good"),
            ("s.mood", "text", "good"),
            ("uuid", "uuid", "good"),
            ("citext", "text", "good"),
            ("s.citext", "character varying(5)", "some"),
            ("character(3)", "character(3)", "good"),
            ("character(3)", "character varying(3)", "good"),
            ("character(4)", "character varying(3)", "some"),
            ("name", "bpchar", "good"),
            ("integer", "character varying(11)", "some"),
            ("text", "jsonb", "some"),
            ("jsonb", "json", "good"),
            ("json", "boolean", "some"),
            ("jsonb", "integer", "some"),
            ("json", "date", "some"),
            ("integer", "boolean", "some"),
            ("integer", "jsonb", "good"),
            ("numeric", "jsonb", "some"),
            ("integer", "date", "some"),
            ("date", "jsonb", "never"),
            ("date", "bigint", "never"),
            ("boolean", "date", "never"),
            ("boolean", "numeric", "never"),
            ("boolean", "jsonb", "never"),
            ("integer", "s.mood", "some"),
            ("s.mood", "integer", "some"),
            ("bit(3)", "bit(4)", "some"),
            ("smallint", "integer", "good"),
            ("integer", "smallint", "some"),
            ("integer", "integer", "good"),
            ("smallint", "real", "good"),
            ("integer", "real", "some"),
            ("integer", "double precision", "good"),
            ("bigint", "double precision", "some"),
            ("bigint", "numeric", "good"),
            ("bigint", "numeric(20,0)", "some"),
            ("double precision", "numeric", "good"),
            ("numeric", "bigint", "some"),
            ("numeric", "double precision", "some"),
            ("numeric(10,2)", "numeric(11,3)", "good"),
            ("numeric(10,2)", "numeric(10,1)", "some"),
            ("numeric(10,2)", "numeric(10,3)", "some"),
            ("numeric(5,-2)", "numeric(7,0)", "good"),
            ("date", "timestamp without time zone", "good"),
            ("date", "timestamp with time zone", "some"),
            (
                "timestamp without time zone",
                "timestamp with time zone",
                "some",
            ),
            (
                "timestamp with time zone",
                "timestamp(3) with time zone",
                "some",
            ),
            (
                "timestamp(3) with time zone",
                "timestamp(3) without time zone",
                "some",
            ),
            (
                "timestamp(3) with time zone",
                "timestamp with time zone",
                "good",
            ),
            (
                "timestamp(3) without time zone",
                "timestamp(4) without time zone",
                "good",
            ),
            ("date", "timestamp(0) without time zone", "good"),
        ] {
            assert_eq!(judge(source, lookup), expected, "{source} into {lookup}");
        }
    }

    #[test]
    fn sentence_says_which_values_do_not_fit() {
        for (source, lookup, expected) in [
            ("text", "jsonb", "text that is not JSON is rejected"),
            (
                "text",
                "integer",
                "text that is not a value of type integer is rejected",
            ),
            (
                "bit",
                "bit(4)",
                "values that bit(4) does not take are rejected",
            ),
            (
                "bit(3)",
                "s.mood",
                "values of bit(3) that are not values of s.mood are rejected",
            ),
            (
                "bigint",
                "integer",
                "values that integer cannot hold are rounded or rejected",
            ),
            (
                "timestamp without time zone",
                "timestamp(2) without time zone",
                "times are rounded to 2 decimals of a second",
            ),
            (
                "timestamp without time zone",
                "date",
                "the time of day is cut off",
            ),
            (
                "timestamp with time zone",
                "timestamp without time zone",
                "times are stored as of UTC, without their zone",
            ),
            ("date", "timestamp with time zone", "times are taken as UTC"),
        ] {
            assert_eq!(
                fit_of(source, lookup),
                Fit::Some(expected.to_owned()),
                "{source} into {lookup}"
            );
        }
    }
}
