//! Rows of passwords that are hard to carry: other alphabets, signs that SCRAM's normalization
//! (SASLprep) changes or prohibits, long ones. Each has a role with SCRAM and one with MD5.

use super::row::{Row, connected, refused, stricter};

const NOTHING: &str = "the driver takes such a password for an empty one; libpq takes it as it is";

/// What each is for. SASLprep changes 3 to 7; what it prohibits, as 8 to 12, is taken as it is.
const PASSWORDS: [&str; 14] = [
    "🔑 tab\there \\ 'quote' \"two\" @:/?#%&=+",
    "日本語のパスワード",
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_0123456789abcdefghijklmnopqrstuvwxyz\
     0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_0123456789abcdefghijklmnopqrstuvwxyz",
    // Not composed, a ligature, a blank that is no blank, a soft hyphen, wide letters.
    "cafe\u{301}",
    "\u{fb01}le",
    "a\u{a0}b",
    "a\u{ad}b",
    "\u{ff21}\u{ff22}",
    // A control character beside a letter, for private use, not assigned, both directions of
    // writing, control characters alone, and nothing but what is left out.
    "é\u{7}",
    "a\u{e000}",
    "🦀🦀",
    "\u{627}1",
    "\u{7f}\t",
    "\u{ad}",
];

/// Roles with their passwords, and how the server keeps them.
pub fn roles() -> Vec<(String, &'static str, &'static str)> {
    let kept = ["scram-sha-256", "md5"];
    PASSWORDS
        .into_iter()
        .enumerate()
        .flat_map(|(at, password)| kept.map(|how| (role(how, at), password, how)))
        .collect()
}

fn role(how: &str, at: usize) -> String {
    format!("{}_{at}", how.split('-').next().unwrap())
}

/// All of them in one password file.
pub fn file() -> String {
    roles()
        .into_iter()
        .map(|(role, password, _)| {
            let password = password.replace('\\', "\\\\").replace(':', "\\:");
            format!("*:*:*:{role}:{password}\n")
        })
        .collect()
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, (role, password, how)) in roles().into_iter().enumerate() {
        let database = how.split('-').next().unwrap();
        let place = format!("host=localhost port={{P}} dbname={database} user={role}");
        let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
        let row = |text: &str| match (how, password) {
            ("scram-sha-256", "\u{ad}") => {
                stricter(text, "password authentication failed", NOTHING)
            }
            _ => connected(text),
        };
        rows.push(row(&format!("{place} password='{quoted}'")));
        rows.push(row(&format!("{place} passfile={{D}}/pass.hard")));
        if at < 4 {
            let encoded: String = password.bytes().map(|b| format!("%{b:02x}")).collect();
            rows.push(connected(&format!(
                "postgresql://{role}:{encoded}@localhost:{{P}}/{database}"
            )));
            rows.push(connected(&place).with("PGPASSWORD", password));
            rows.push(refused(&format!("{place} password='{quoted}x'")));
        }
    }
    // The same password, written otherwise: SCRAM takes it, MD5 does not.
    let composed = "host=localhost port={P} dbname=scram user=scram_3 password='caf\u{e9}'";
    rows.push(connected(composed));
    rows.push(refused(
        &composed.replace("dbname=scram user=scram_3", "dbname=md5 user=md5_3"),
    ));
    rows
}
