//! Messages of a table like the labels table, as the server sends them.

/// Its OID.
pub const OID: u32 = 16384;

/// Names and types of its columns.
pub const COLUMNS: [(&str, u32); 9] = [
    ("id", 2950),
    ("code", 1043),
    ("label", 1043),
    ("display_name", 1043),
    ("created_at", 1184),
    ("created_by", 1043),
    ("updated_at", 1184),
    ("updated_by", 1043),
    ("deleted_at", 1184),
];

/// The message that describes it; its identity is `id`.
pub fn relation() -> Vec<u8> {
    let mut out = b"R".to_vec();
    out.extend_from_slice(&OID.to_be_bytes());
    out.extend_from_slice(b"public\0labels\0d");
    out.extend_from_slice(
        &u16::try_from(COLUMNS.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    for (name, type_oid) in COLUMNS {
        out.push(u8::from(name == "id"));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(&type_oid.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
    }
    out
}

/// Begin (`B`) of the transaction that commits at this LSN.
pub fn begin(commit_lsn: u64) -> Vec<u8> {
    let mut out = b"B".to_vec();
    out.extend_from_slice(&commit_lsn.to_be_bytes());
    out.extend_from_slice(&0i64.to_be_bytes());
    out.extend_from_slice(&77u32.to_be_bytes());
    out
}

/// Its Commit (`C`).
pub fn commit(commit_lsn: u64) -> Vec<u8> {
    let mut out = b"C\0".to_vec();
    out.extend_from_slice(&commit_lsn.to_be_bytes());
    out.extend_from_slice(&(commit_lsn + 8).to_be_bytes());
    out.extend_from_slice(&0i64.to_be_bytes());
    out
}

/// Insert (`I`) or Update (`U`) of the row with this number: a live one of some 190 bytes.
pub fn change(tag: u8, number: usize) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&OID.to_be_bytes());
    let id = format!("6f1c2a34-0000-4000-8000-{number:012}");
    let code = format!("L{number:06}");
    let time = "2026-03-01 10:00:00.123456+00";
    out.extend_from_slice(b"N\0\x09");
    for text in [
        &id,
        &code,
        "Label of a row",
        "Label as it is shown",
        time,
        "someone",
        time,
        "someone else",
    ] {
        out.push(b't');
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'n');
    out
}
