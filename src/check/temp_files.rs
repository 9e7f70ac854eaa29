//! Whether a comparison of the largest lookup has room for its temporary files.

use super::Findings;
use crate::facts::TempFiles;
use crate::sql::ident;

/// The setting's name, which is in the server's error in any language.
pub(crate) const TEMP_FILE_LIMIT: &str = "temp_file_limit";

/// What to do about it.
pub(crate) const TEMP_FILE_LIMIT_HINT: &str = "Only a superuser may raise it, for the role of the target's URL: ALTER ROLE ... SET temp_file_limit = -1; \
    on a managed service it is a parameter. A comparison of all rows may take twice the room of its lookup.";

/// How many times the lookup a comparison may take: both sides are sorted or hashed.
const TIMES: i64 = 2;

pub(super) fn limit(findings: &mut Findings, room: Option<&TempFiles>, user: &str) {
    let Some(room) = room.filter(|room| room.limit < room.bytes.saturating_mul(TIMES)) else {
        return;
    };
    findings
        .warning(
            "target",
            format!(
                "temp_file_limit is {} MB, and \"{}\" has {} MB",
                room.limit >> 20,
                room.lookup,
                room.bytes >> 20
            ),
        )
        .detail(
            "A resync compares all rows, in temporary files if they do not fit into work_mem. It would fail each night.",
        )
        .fix(format!(
            "As superuser: ALTER ROLE {} SET temp_file_limit = -1;",
            ident(user)
        ));
}
