//! The cases: each is a name, how it begins, and steps with what is to be done after them.

use super::{ASYNCHRONOUS, CHUNKS, USUAL, With, play};

#[test]
#[rustfmt::skip]
fn batches() {
    play(&[
        ("a transaction is applied, then acknowledged", USUAL, &[("insert 200", "apply 1 to 208"), ("done", "say 208/208")],
        ),
        ("what comes while a batch is applied is the next one", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("insert 300", ""),
            ("insert 400", ""),
            ("done", "say 408/208, apply 2 to 408"),
            ("done", "say 408/408"),
        ]),
        ("one that changes nothing here only moves the position", USUAL, &[("empty 200", ""), ("tick", "say 208/100?")],
        ),
        ("what was applied before is neither applied nor received", USUAL, &[("empty 50", ""), ("insert 200", "apply 1 to 208")],
        ),
        ("after a batch that failed one transaction at a time", With { careful_until: Some(308), ..USUAL }, &[
            ("insert 200", "apply 1 to 208"),
            ("reads?", "true"),
            ("insert 300", ""),
            ("reads?", "false"),
            ("done", "say 308/208, apply 1 to 308"),
            ("done", "say 308/308"),
            ("insert 400", "apply 1 to 408"),
            ("insert 500", ""),
            ("reads?", "true"),
        ]),
        ("a stream that is behind lets transactions gather for 10 ms", USUAL, &[
            ("late 200", ""),
            ("deadline?", "10"),
            ("insert 300", "apply 2 to 308"),
        ]),
        ("and no longer", USUAL, &[("late 200", ""), ("at 1", "apply 1 to 208")],
        ),
        ("a batch that fails ends the session", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("fails", "end: it does not fit"),
        ]),
        ("a job that ended with the target's session is not waited for", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("in-hand?", "true"),
            ("+lost", ""),
            ("in-hand?", "false"),
        ]),
        ("nothing is acknowledged that a crash of the target may lose", ASYNCHRONOUS, &[
            ("insert 200", "apply 1 to 208"),
            ("done", "say 208/100"),
            ("tick", "say 208/100?, harden 208"),
            ("done", "say 208/208"),
        ]),
        (
            "nothing is acknowledged before the history is proved",
            With { start: 40, ..USUAL },
            &[
            ("tick", "say 100/40?"),
            ("empty 50", ""),
            ("tick", "say 100/40?"),
            ("keepalive 99", ""),
            ("tick", "say 100/40?"),
            ("keepalive 100", ""),
            ("tick", "say 100/100?"),
        ]),
        (
            "another history is a gap",
            With { start: 40, ..USUAL },
            &[("insert 50", "end: the source's history is not the one that was applied")],
        ),
    ]);
}

#[test]
#[rustfmt::skip]
fn idle_positions() {
    play(&[
        ("a keepalive alone stores nothing", USUAL, &[("keepalive 150", ""), ("tick", "say 150/100?")],
        ),
        ("the position is stored with the first keepalive after the interval", USUAL, &[
            ("keepalive 150", ""),
            ("at 4", ""),
            ("tick", "say 150/100?"),
            ("keepalive 160", ""),
            ("at 6", ""),
            ("tick", "say 160/100?"),
            ("keepalive 170", "store 170"),
            ("done", "say 170/170"),
        ]),
        ("what is there is stored if no keepalive comes", USUAL, &[
            ("keepalive 150", ""),
            ("at 6", ""),
            ("tick", "say 150/100?"),
            ("at 16", ""),
            ("tick", "store 150, say 150/100?"),
        ]),
        ("the same position is stored again as of a later time when it is due", USUAL, &[
            ("keepalive 100", ""),
            ("at 6", ""),
            ("tick", "say 100/100?"),
            ("keepalive 100", "store 100"),
        ]),
        ("who waits for a position does not wait for the interval", USUAL, &[
            ("hurry", "say 100/100?"),
            ("keepalive 150", "store 150"),
            ("done", "say 150/150"),
        ]),
        ("who waits for a position that is stored gets no other time", USUAL, &[("hurry", "say 100/100?"), ("keepalive 100", "")],
        ),
        ("a keepalive within a transaction is no position", USUAL, &[
            ("hurry", "say 100/100?"),
            ("begin 200", ""),
            ("keepalive 200", ""),
            ("commit 200", ""),
            ("keepalive 208", "store 208"),
        ]),
        ("an idle position never overtakes a batch", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("hurry", "say 208/100?"),
            ("keepalive 250", ""),
            ("done", "say 250/208"),
            ("hurry", "say 250/208?"),
            ("keepalive 250", "store 250"),
        ]),
        ("the time is the source's, read before the position was passed", USUAL, &[
            ("at 3", ""),
            ("named 120", ""),
            ("keepalive 150", "store 150 as of 3000000"),
        ]),
        ("a position that no server can have ends the connection", USUAL, &[("keepalive 18446744073709551615", "end: the server sent a position that cannot exist: FFFFFFFF/FFFFFFFF")],
        ),
        ("bookkeeping and stream are compared every interval", USUAL, &[
            ("at 9", ""),
            ("tick", "say 100/100?"),
            ("at 10", ""),
            ("tick", "say 100/100?, audit [0]"),
            ("done", "say 100/100"),
            ("at 19", ""),
            ("tick", "say 100/100?"),
            ("at 20", ""),
            ("tick", "say 100/100?, audit [0]"),
        ]),
        ("a silent source is given up after a minute", USUAL, &[
            ("at 60", ""),
            ("tick", "say 100/100?, audit [0]"),
            ("done", "say 100/100"),
            ("at 61", ""),
            ("tick", "end: the source has not answered for too long"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn pauses() {
    play(&[
        ("an idle stream is paused where it is", USUAL, &[("pause 100", "say 100/100?, stand 100"), ("reads?", "true")],
        ),
        ("it comes to stand behind what was asked for, with a keepalive", USUAL, &[
            ("pause 150", "say 100/100?"),
            ("reads?", "true"),
            ("keepalive 149", "store 149"),
            ("done", "say 149/149"),
            ("keepalive 160", "store 160"),
            ("done", "say 160/160, stand 160"),
        ]),
        ("or with a transaction", USUAL, &[
            ("pause 150", "say 100/100?"),
            ("insert 200", "apply 1 to 208"),
            ("done", "say 208/208, stand 208"),
        ]),
        ("what was received is applied first, and no more is taken in", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("insert 300", ""),
            ("pause 100", "say 308/100?"),
            ("reads?", "false"),
            ("done", "say 308/208, apply 1 to 308"),
            ("done", "say 308/308, stand 308"),
        ]),
        ("a transaction that has begun is finished", USUAL, &[
            ("begin 200", ""),
            ("row 1", ""),
            ("pause 100", "say 100/100?"),
            ("reads?", "true"),
            ("commit 200", "apply 1 to 208"),
            ("reads?", "false"),
            ("done", "say 208/208, stand 208"),
        ]),
        ("nothing is written while it is paused", USUAL, &[
            ("pause 100", "say 100/100?, stand 100"),
            ("insert 200", ""),
            ("keepalive 250", ""),
            ("hurry", "say 250/100?"),
            ("keepalive 260", ""),
            ("tick", "say 260/100?"),
            ("resume", "apply 1 to 208"),
        ]),
        ("a copy is merged where it stands", USUAL, &[
            ("merge", "refused"),
            ("pause 100", "say 100/100?, stand 100"),
            ("merge", "merge 100"),
            ("merge", "refused"),
            ("merged", "say 100/100"),
            ("resume", ""),
        ]),
        ("a read model that joins has what waits, from the position on", With { takes_part: false, ..USUAL }, &[
            ("pause 100", "say 100/100?, stand 100"),
            ("insert 200", ""),
            ("merge", "merge 100"),
            ("merged", "say 208/100"),
            ("resume", "apply 1 to 208"),
            ("done", "say 208/208"),
            ("at 10", ""),
            ("tick", "say 208/208?, audit [0]"),
        ]),
        ("one that does not join leaves again, with what waits for it", With { takes_part: false, ..USUAL }, &[
            ("pause 100", "say 100/100?, stand 100"),
            ("insert 200", ""),
            ("merge", "merge 100"),
            ("not-merged", "say 208/100"),
            ("resume", "apply 1 to 208 of no row"),
            ("done", "say 208/208"),
            ("at 10", ""),
            ("tick", "say 208/208?, audit []"),
        ]),
        ("a second pause ends the first", USUAL, &[
            ("pause 100", "say 100/100?, stand 100"),
            ("pause 150", "say 100/100?"),
            ("keepalive 150", "store 150"),
            ("done", "say 150/150, stand 150"),
        ]),
        ("a pause that keeps the stream waiting with nothing in hand ends", With { proves: false, ..USUAL }, &[
            ("insert 200", "look"),
            ("pause 100", "say 208/100?"),
            ("deadline?", "10000"),
            ("at 10", "the pause ends"),
            ("proved", "apply 1 to 208"),
            ("done", "say 208/208"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn shutdowns_of_the_source() {
    play(&[
        ("an idle position is stored and acknowledged at once", USUAL, &[
            ("shutdown 150", "store 150, say 150/100 moving"),
            ("done", "say 150/150 moving"),
            ("deadline?", "none"),
            ("tick", "say 150/150?"),
        ]),
        ("a batch in hand first", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("shutdown 250", "say 250/100 moving"),
            ("done", "store 250, say 250/208 moving"),
            ("done", "say 250/250 moving"),
        ]),
        ("and what waits for it", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("insert 300", ""),
            ("shutdown 350", "say 350/100 moving"),
            ("done", "say 350/208 moving, apply 1 to 308"),
            ("done", "store 350, say 350/308 moving"),
            ("done", "say 350/350 moving"),
        ]),
        ("what is applied is made durable", ASYNCHRONOUS, &[
            ("insert 200", "apply 1 to 208"),
            ("done", "say 208/100"),
            ("shutdown 208", "say 208/100 moving, harden 208"),
            ("done", "say 208/208 moving"),
        ]),
        ("so is each batch", ASYNCHRONOUS, &[
            ("insert 200", "apply 1 to 208"),
            ("insert 300", ""),
            ("shutdown 350", "say 350/100 moving"),
            ("done", "say 350/100 moving, harden 208"),
            ("done", "say 350/208 moving, apply 1 to 308"),
            ("done", "store 350, say 350/208 moving"),
            ("done", "say 350/208 moving, harden 350"),
            ("done", "say 350/350 moving"),
        ]),
        ("a keepalive that was asked for is asked for with the reply", USUAL, &[
            ("keepalive 100", ""),
            ("+hurry", ""),
            ("shutdown 100", "say 100/100?"),
        ]),
        ("what is not acknowledged in time ends the connection", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("at 1", ""),
            ("shutdown 250", "say 250/100 moving"),
            ("deadline?", "6000"),
            ("at 5", ""),
            ("at 6", "end: the source is shutting down"),
        ]),
        ("a server that asks again is answered, and has no more time for it", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("shutdown 250", "say 250/100 moving"),
            ("at 4", ""),
            ("shutdown 250", "say 250/100 moving"),
            ("deadline?", "5000"),
        ]),
        ("one who asks for what is acknowledged has only a reply", USUAL, &[
            ("keepalive 100", ""),
            ("tick", "say 100/100?"),
            ("shutdown 100", "say 100/100"),
            ("deadline?", "none"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn chunks() {
    play(&[
        ("a large transaction goes in parts, and counts with its end", CHUNKS, &[
            ("begin 200", ""),
            ("row 1", "stage 1 of 200"),
            ("reads?", "true"),
            ("row 2", ""),
            ("reads?", "false"),
            ("done", "say 100/100, stage 1 of 200"),
            ("done", "say 100/100"),
            ("commit 200", "apply 1 to 208"),
            ("done", "say 208/208"),
        ]),
        ("a part follows whole transactions that wait", With { chunk_bytes: 1, ..USUAL }, &[
            ("empty 150", ""),
            ("begin 200", ""),
            ("row 1", "stage 1 of 200"),
            ("done", "say 158/100"),
            ("commit 200", "apply 1 to 208"),
        ]),
        ("the end of one goes alone", CHUNKS, &[
            ("begin 200", ""),
            ("row 1", "stage 1 of 200"),
            ("commit 200", ""),
            ("reads?", "false"),
            ("done", "say 208/100, apply 1 to 208"),
            ("reads?", "true"),
        ]),
        ("nothing else is done at the target in between", With { synchronous: false, ..CHUNKS }, &[
            ("insert 200", "apply 1 to 208"),
            ("done", "say 208/100"),
            ("begin 300", ""),
            ("row 1", "stage 1 of 300"),
            ("done", "say 208/100"),
            ("at 10", ""),
            ("tick", "say 208/100?"),
            ("commit 300", "apply 1 to 308"),
            ("done", "say 308/100, harden 308"),
            ("done", "say 308/308, audit [0]"),
        ]),
        ("a transaction with parts is finished before the stream is paused", CHUNKS, &[
            ("begin 200", ""),
            ("row 1", "stage 1 of 200"),
            ("pause 100", "say 100/100?"),
            ("done", "say 100/100"),
            ("reads?", "true"),
            ("row 2", "stage 1 of 200"),
            ("done", "say 100/100"),
            ("commit 200", "apply 1 to 208"),
            ("done", "say 208/208, stand 208"),
        ]),
        ("a slow target is waited for longer than for a batch", CHUNKS, &[
            ("begin 200", ""),
            ("row 1", "stage 1 of 200"),
            ("row 2", ""),
            ("deadline?", "60000"),
            ("at 59", ""),
            ("at 60", "end: the target is slow: the stream is closed until it has taken the batch in hand"),
        ]),
        ("a batch for ten seconds", With { careful_until: Some(999), ..USUAL }, &[
            ("insert 200", "apply 1 to 208"),
            ("insert 300", ""),
            ("deadline?", "10000"),
            ("at 10", "end: the target is slow: the stream is closed until it has taken the batch in hand"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn proofs() {
    play(&[
        ("nothing is handed over before the description is proved", With { proves: false, ..USUAL }, &[
            ("insert 200", "look"),
            ("reads?", "false"),
            ("tick", "say 208/100?"),
            ("proved", "apply 1 to 208"),
            ("done", "say 208/208"),
            ("insert 300", "apply 1 to 308"),
        ]),
        ("a table that is another one leaves before what waits", With { proves: false, ..USUAL }, &[
            ("insert 200", "look"),
            ("altered", "apply 1 to 208 of no row without 0"),
            ("done", "say 208/208"),
            ("at 10", ""),
            ("tick", "say 208/208?, audit []"),
        ]),
        ("a leaf that is a part of its table is one by what the catalogs say", With { proves: false, ..USUAL }, &[
            ("leaf 200", "note"),
            ("done", "say 208/100, look"),
            ("attached", "apply 1 to 208"),
        ]),
        ("one that was detached takes its table's read models out of the stream", With { proves: false, ..USUAL }, &[
            ("leaf 200", "note"),
            ("done", "say 208/100, look"),
            ("detached", "apply 1 to 208 of no row without 0"),
        ]),
        ("a description that does not fit breaks the read model there", USUAL, &[
            ("begin 200", ""),
            ("alter", ""),
            ("row 1", ""),
            ("commit 200", "apply 1 to 208 of no row without 0"),
            ("hurry", "say 208/100?"),
            ("done", "say 208/208"),
            ("keepalive 250", "store 250"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_end() {
    play(&[
        ("an idle position is stored, what is not durable is made so, what waits comes again", ASYNCHRONOUS, &[
            ("keepalive 150", ""),
            ("last", "store 150"),
            ("done", "say 150/100"),
            ("last", "harden 150"),
            ("done", "say 150/150"),
            ("last", "none"),
        ]),
        ("a batch in hand is waited for", USUAL, &[
            ("insert 200", "apply 1 to 208"),
            ("last", "none"),
            ("insert 300", ""),
        ]),
        ("a pause ends with it", USUAL, &[
            ("pause 100", "say 100/100?, stand 100"),
            ("keepalive 150", ""),
            ("last", "store 150"),
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn commits_that_wait_for_us() {
    play(&[
        ("each position is stored and made durable at once", ASYNCHRONOUS, &[
            ("keepalive 100", ""),
            ("named 100", ""),
            ("keepalive 150", "store 150 as of 0"),
            ("done", "say 150/100, harden 150"),
            ("done", "say 150/150"),
            ("insert 200", "apply 1 to 208"),
            ("done", "say 208/150, harden 208"),
        ]),
        ("and after two seconds they wait no more", USUAL, &[
            ("keepalive 100", ""),
            ("named 100", ""),
            ("insert 200", "apply 1 to 208"),
            ("deadline?", "2000"),
            ("at 2", "say 208/100 apart letting go"),
            ("done", "say 208/208 apart, say 208/208"),
        ]),
    ]);
}
