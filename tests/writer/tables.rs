//! The small histories: name, changes that are there, changes that come, what the lookup shows then
//! (`code=label`).

/// Live rows 1 MR and 2 DR, dead row 3 SIR.
pub const START: [&str; 3] = ["+1|MR|Mr.|-", "+2|DR|Dr.|-", "+3|SIR|Sir|x"];

/// Name, rows at the start, changes, expected lookup.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

/// Cases without unchanged values; they hold whether or not columns can be stored out of line.
pub const CASES: &[Case] = &[
    // The truth table.
    (
        "insert live",
        &START,
        &["+4|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms."],
    ),
    (
        "a new row moves to the identity of a dead one that is gone",
        &START,
        &["-3", "+8|MS|Ms.|-", "=8 > 3|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms."],
    ),
    (
        "a dead row moves on and lives, and a new one has its identity",
        &START,
        &["=3 > 9|SIR|Sir|-", "+3|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms.", "SIR=Sir"],
    ),
    (
        "insert dead",
        &START,
        &["+4|MS|Ms.|x"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "insert without key",
        &START,
        &["+4|-|Ms.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "update same key",
        &START,
        &["=1|MR|Sir|-"],
        &["DR=Dr.", "MR=Sir"],
    ),
    (
        "update that changes nothing",
        &START,
        &["=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "key change",
        &START,
        &["=1|MS|Mr.|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    ("key becomes null", &START, &["=1|-|Mr.|-"], &["DR=Dr."]),
    (
        "key is null no more",
        &["+1|-|Mr.|-"],
        &["=1|MR|Mr.|-"],
        &["MR=Mr."],
    ),
    ("soft delete", &START, &["=1|MR|Mr.|x"], &["DR=Dr."]),
    (
        "soft delete with another code",
        &START,
        &["=1|OLD|Mr.|x"],
        &["DR=Dr."],
    ),
    (
        "restore",
        &START,
        &["=3|SIR|Sir|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "restore with another code",
        &START,
        &["=3|LADY|Lady|-"],
        &["DR=Dr.", "LADY=Lady", "MR=Mr."],
    ),
    (
        "dead stays dead",
        &START,
        &["=3|SIR|Knight|x"],
        &["DR=Dr.", "MR=Mr."],
    ),
    ("delete live", &START, &["-1"], &["DR=Dr."]),
    ("delete dead", &START, &["-3"], &["DR=Dr.", "MR=Mr."]),
    ("delete unknown", &START, &["-77"], &["DR=Dr.", "MR=Mr."]),
    ("truncate", &START, &["!"], &[]),
    // Keys that change hands.
    (
        "two codes swapped",
        &START,
        &["=1|T|Mr.|-", "=2|MR|Dr.|-", "=1|DR|Mr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "swapped at once",
        &START,
        &["=1|DR|Mr.|-", "=2|MR|Dr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "rotated",
        &["+1|A|a|-", "+2|B|b|-", "+3|C|c|-"],
        &["=1|B|a|-", "=2|C|b|-", "=3|A|c|-"],
        &["A=c", "B=a", "C=b"],
    ),
    (
        "chain",
        &["+1|A|a|-", "+2|B|b|-"],
        &["=1|C|a|-", "=2|A|b|-"],
        &["A=b", "C=a"],
    ),
    (
        "chain, other order",
        &["+1|A|a|-", "+2|B|b|-"],
        &["=2|C|b|-", "=1|B|a|-"],
        &["B=a", "C=b"],
    ),
    (
        "code freed by soft delete is taken",
        &START,
        &["=1|MR|Mr.|x", "+4|MR|New|-"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code taken before it is freed by soft delete",
        &START,
        &["+4|MR|New|-", "=1|MR|Mr.|x"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code freed by delete is taken",
        &START,
        &["-1", "+4|MR|New|-"],
        &["DR=Dr.", "MR=New"],
    ),
    (
        "code freed is taken with the same label",
        &START,
        &["-1", "+4|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "code freed by change is taken by another row",
        &START,
        &["=1|X|Mr.|-", "=2|MR|Dr.|-"],
        &["MR=Dr.", "X=Mr."],
    ),
    (
        "late delete of a row whose code was taken",
        &["+3|SIR|Sir|x", "+4|SIR|New|-"],
        &["-3"],
        &["SIR=New"],
    ),
    (
        "late change of a dead row whose code was taken",
        &["+3|SIR|Sir|x", "+4|SIR|New|-"],
        &["=3|SIR|Old|x"],
        &["SIR=New"],
    ),
    (
        "soft delete after the code was taken over by a later row",
        &["+1|MR|Mr.|-", "=1|MR|Mr.|x", "+4|MR|New|-"],
        &["=1|MR|Mr.|x", "-1"],
        &["MR=New"],
    ),
    (
        "insert and delete in one batch",
        &START,
        &["+4|MS|Ms.|-", "-4"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "delete and insert of one identity",
        &START,
        &["-1", "+1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "delete and insert of one identity with another code",
        &START,
        &["-1", "+1|MS|Ms.|-"],
        &["DR=Dr.", "MS=Ms."],
    ),
    (
        "there and back",
        &START,
        &["=1|X|Mr.|-", "=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "soft delete and restore",
        &START,
        &["=1|MR|Mr.|x", "=1|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    // Identities that change.
    (
        "identity changed",
        &START,
        &["=1 > 9|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identity and code changed",
        &START,
        &["=1 > 9|MS|Mr.|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "identity changed and deleted",
        &START,
        &["=1 > 9|MR|Mr.|-", "-9"],
        &["DR=Dr."],
    ),
    (
        "identity taken by another row",
        &START,
        &["=1 > 9|MR|Mr.|-", "=2 > 1|DR|Dr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identities swapped",
        &START,
        &["=1 > 9|MR|Mr.|-", "=2 > 1|DR|Dr.|-", "=9 > 2|MR|Mr.|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "identities and codes swapped",
        &START,
        &["=1 > 9|T|Mr.|-", "=2 > 1|MR|Dr.|-", "=9 > 2|DR|Mr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "identity of a dead row changed and restored",
        &START,
        &["=3 > 8|SIR|Sir|x", "=8|SIR|Sir|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "identity freed by a change is inserted again",
        &START,
        &["=1 > 9|MR|Mr.|-", "+1|MS|Ms.|-"],
        &["DR=Dr.", "MR=Mr.", "MS=Ms."],
    ),
    // TRUNCATE within a batch.
    (
        "kept after truncate",
        &START,
        &["!", "+7|MR|Mr.|-", "+8|DR|Doc|-"],
        &["DR=Doc", "MR=Mr."],
    ),
    ("truncate after inserts", &START, &["+4|MS|Ms.|-", "!"], &[]),
    (
        "truncate, insert, truncate, insert",
        &START,
        &["!", "+4|MS|Ms.|-", "!", "+5|MR|Mr.|-"],
        &["MR=Mr."],
    ),
    (
        "truncate, then the same identities with swapped codes",
        &START,
        &["!", "+1|DR|Mr.|-", "+2|MR|Dr.|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    // Two live rows with one key: the smallest identity is shown.
    (
        "duplicate with a larger identity waits",
        &START,
        &["+4|MR|Four|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "duplicate with a smaller identity takes over",
        &START,
        &["+0|MR|Zero|-"],
        &["DR=Dr.", "MR=Zero"],
    ),
    (
        "duplicates in one batch",
        &[],
        &["+5|A|five|-", "+4|A|four|-", "+6|A|six|-"],
        &["A=four"],
    ),
    (
        "waiting row takes over after a delete",
        &["+1|A|one|-", "+2|A|two|-"],
        &["-1"],
        &["A=two"],
    ),
    (
        "waiting row takes over after a soft delete",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1|A|one|x"],
        &["A=two"],
    ),
    (
        "waiting row takes over after a code change",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1|B|one|-"],
        &["A=two", "B=one"],
    ),
    (
        "waiting row takes over after an identity change",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=1 > 9|A|one|-"],
        &["A=two"],
    ),
    (
        "waiting row is changed",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|A|deux|-", "-1"],
        &["A=deux"],
    ),
    (
        "waiting row leaves",
        &["+1|A|one|-", "+2|A|two|-", "+3|A|three|-"],
        &["=2|B|two|-", "-1"],
        &["A=three", "B=two"],
    ),
    (
        "waiting row is deleted",
        &["+1|A|one|-", "+2|A|two|-"],
        &["-2"],
        &["A=one"],
    ),
    (
        "shown row is beaten by a smaller one that comes and goes",
        &["+5|A|five|-"],
        &["+1|A|one|-", "-1"],
        &["A=five"],
    ),
    (
        "duplicates swap places",
        &["+1|A|one|-", "+2|A|two|-", "+3|B|three|-"],
        &["=1|B|one|-"],
        &["A=two", "B=one"],
    ),
    (
        "duplicates after truncate",
        &START,
        &["!", "+9|MR|nine|-", "+8|MR|eight|-"],
        &["MR=eight"],
    ),
];

/// Cases with unchanged out-of-line values (`u`).
pub const UNCHANGED: &[Case] = &[
    (
        "from the lookup row",
        &START,
        &["=1|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "key unchanged too",
        &START,
        &["=1|u|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "only the key unchanged",
        &START,
        &["=1|u|Sir|-"],
        &["DR=Dr.", "MR=Sir"],
    ),
    (
        "moves along with the key",
        &START,
        &["=1|MS|u|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "moves along with swapped keys",
        &START,
        &["=1|DR|u|-", "=2|MR|u|-"],
        &["DR=Mr.", "MR=Dr."],
    ),
    (
        "moves along with the identity",
        &START,
        &["=1 > 9|MS|u|-"],
        &["DR=Dr.", "MS=Mr."],
    ),
    (
        "identities swapped",
        &START,
        &["=1 > 9|MR|u|-", "=2 > 1|DR|u|-", "=9 > 2|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "restored from the map",
        &START,
        &["=3|SIR|u|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "restored under another code",
        &START,
        &["=3|S|u|-"],
        &["DR=Dr.", "MR=Mr.", "S=Sir"],
    ),
    (
        "dead, changed, restored",
        &START,
        &["=3|SIR|u|x", "=3|u|u|-"],
        &["DR=Dr.", "MR=Mr.", "SIR=Sir"],
    ),
    (
        "soft delete and restore",
        &START,
        &["=1|MR|u|x", "=1|MR|u|-"],
        &["DR=Dr.", "MR=Mr."],
    ),
    (
        "soft delete, code taken, restored elsewhere",
        &START,
        &["=1|MR|u|x", "=2|MR|u|-", "=1|X|u|-"],
        &["MR=Dr.", "X=Mr."],
    ),
    (
        "filled within the batch",
        &START,
        &["=1|MR|New|-", "=1|X|u|-"],
        &["DR=Dr.", "X=New"],
    ),
    (
        "insert then unchanged",
        &START,
        &["+4|MS|Ms.|-", "=4|M|u|-"],
        &["DR=Dr.", "M=Ms.", "MR=Mr."],
    ),
    (
        "waiting row from the map",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|B|u|-"],
        &["A=one", "B=two"],
    ),
    (
        "waiting row takes over with its own value",
        &["+1|A|one|-", "+2|A|two|-"],
        &["=2|A|u|-", "=1|A|u|x"],
        &["A=two"],
    ),
    (
        "beaten row keeps its own value",
        &["+2|A|two|-"],
        &["+1|A|one|-", "=2|A|u|-", "-1"],
        &["A=two"],
    ),
    (
        "beaten in one batch, comes back in the next",
        &["+2|A|two|-", "+1|A|one|-"],
        &["=1|B|u|-", "=2|A|u|-"],
        &["A=two", "B=one"],
    ),
    (
        "key without value becomes live",
        &["+1|-|one|-"],
        &["=1|A|u|-"],
        &["A=one"],
    ),
];
