//! No statement of the writer, of a copy or of a comparison needs the server's statistics to be
//! linear.
//!
//! Every shape of a batch is carried out at two sizes, on a server that never analyses anything.
//! What the server did is counted in rows that the nodes of its plans handled and in time of its
//! processor: four times the rows may cost little more than four times of either. Then the same
//! with statistics that are wrong by orders of magnitude, which must make no difference.

mod shapes;
mod watch;

use shapes::{REJECTED, Shape, TAKEN, Way};
use watch::Work;

/// Rows of the larger size; the smaller one is a quarter of it. `make campaign-plans` takes 40,000.
fn many() -> usize {
    let wanted = std::env::var("CDC_TEST_PLAN_ROWS");
    wanted.map_or(10_000, |rows| rows.parse().unwrap())
}

/// What four times the rows may cost. Something that grows with the square costs sixteen times as
/// much.
const MOST_ROWS: f64 = 6.0;
const MOST_TIME: f64 = 10.0;

/// Rows that are too few to compare.
const NOTHING: f64 = 5000.0;

/// The server takes tables for much larger, or for much smaller, than they are.
const LIES: [&str; 2] = [
    "UPDATE pg_class SET relpages = 100000, reltuples = 1 WHERE relname ~ '_1(_0)?$|^lookup' AND relkind = 'r'",
    "UPDATE pg_class SET relpages = 1, reltuples = 1e9 WHERE relname ~ '_1(_0)?$|^lookup' AND relkind = 'r'",
];

fn reads_nothing_again(name: &str, work: &Work) {
    let repeated = work.repeated();
    assert!(repeated.is_empty(), "{name}: {}", repeated.join("\n"));
}

/// Beside a large table the batch itself is smaller.
fn divisor(shape: &Shape) -> usize {
    if shape.name.contains("large table") {
        16
    } else {
        1
    }
}

async fn grows_evenly(shapes: &[Shape], rejected_before: bool) {
    for shape in shapes {
        let rows = many() / divisor(shape);
        let few = shape.run(rows / 4, rejected_before, "").await;
        let many = shape.run(rows, rejected_before, "").await;
        let rows = many.rows() / few.rows().max(NOTHING);
        let time = many.time / few.time;
        println!(
            "{}: {:.1} times the rows, {time:.1} times the time",
            shape.name, rows
        );
        reads_nothing_again(shape.name, &many);
        assert!(rows < MOST_ROWS, "{}: {rows:.1} times the rows", shape.name);
        assert!(time < MOST_TIME, "{}: {time:.1} times the time", shape.name);
    }
}

#[tokio::test]
async fn batches_grow_evenly() {
    grows_evenly(TAKEN, false).await;
}

#[tokio::test]
async fn batches_with_rejected_rows_grow_evenly() {
    grows_evenly(REJECTED, true).await;
}

#[tokio::test]
async fn statistics_that_are_wrong_make_no_difference() {
    const ROWS: usize = 500;
    for (shape, lie) in TAKEN.iter().chain(REJECTED).zip(LIES.into_iter().cycle()) {
        let work = shape.run(ROWS / divisor(shape).min(4), true, lie).await;
        reads_nothing_again(shape.name, &work);
    }
}

/// A batch of a few rows costs the same whatever the size of the tables, and whatever the server
/// takes that for.
#[tokio::test]
async fn small_batches_do_not_depend_on_the_size_of_the_tables() {
    const ROWS: usize = 20;
    let small = |shape: &&Shape| {
        let whole = ["TRUNC", "large table", "first row goes"];
        shape.way == Way::Batch && !whole.iter().any(|part| shape.name.contains(part))
    };
    let shapes = TAKEN.iter().chain(REJECTED).filter(small);
    for (shape, lie) in shapes.zip(["", LIES[0], LIES[1]].into_iter().cycle()) {
        let few = shape.run_on(500, ROWS, true, "").await;
        let many = shape.run_on(5000, ROWS, true, lie).await;
        println!(
            "{}: {} rows, {} beside ten times as many",
            shape.name,
            few.rows(),
            many.rows()
        );
        reads_nothing_again(shape.name, &many);
        let most = 1.5 * few.rows() + 500.0;
        assert!(
            many.rows() < most,
            "{}: {} rows, {}",
            shape.name,
            few.rows(),
            many.rows()
        );
    }
}
