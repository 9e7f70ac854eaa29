//! Many rows that are all new: by `COPY` into map and lookup, or by the stage if the target has
//! something against one.

use cdc::batch::Written;
use cdc::error::Class;
use cdc::read_model::ModelIndex;

use crate::cases::{TABLES, assert_consistent, labels, other};
use crate::limits::stopping;
use crate::rig::{FIRST, Rig, SECOND, shape};
use crate::support::{rows, value};

/// Each statement that writes lookup rows is noted.
const NOTED: &str = "
    CREATE TABLE statements (text text NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.statements SELECT split_part(current_query(), '' '', 1); RETURN NULL; END';
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON lookup EXECUTE FUNCTION note();";

/// Inserts of live rows with these ids, more than go as one statement.
pub fn inserts(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.map(|id| format!("+{id}|C{id}|label {id}|-")).collect()
}

/// The rig with both read models; [`ways`] tells how the last batch was written.
pub async fn rig(tables: &str) -> Rig {
    let mut rig = Rig::new(&format!("{TABLES}{NOTED}{tables}")).await;
    rig.add(&labels(true)).await;
    rig.add(&other()).await;
    rig
}

pub async fn ways(rig: &Rig) -> Vec<String> {
    rows(
        &rig.db,
        "WITH noted AS (DELETE FROM statements RETURNING text) SELECT DISTINCT text FROM noted ORDER BY 1",
    )
    .await
}

#[tokio::test]
async fn new_rows_are_copied_past_the_stage() {
    let mut rig = rig("").await;
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    ways(&rig).await;
    let mut batch = inserts(100..700);
    batch.push("+700|C700|dead|2020-01-01 00:00:00+00".to_owned());
    batch.push(r"+701|tab	\|back\slash and \N|-".to_owned());
    let written = rig.write(FIRST, &batch).await.unwrap();
    assert_eq!((written.inserted, written.total), (601, 601));
    assert_eq!(ways(&rig).await, ["COPY"]);
    assert_consistent(&rig, "copied").await;
    let sql = "SELECT code, label, synced > now() - interval '1 minute' FROM lookup WHERE code IN ('C100', 'C700', E'tab\t\\\\')";
    let shown = rows(&rig.db, sql).await;
    assert_eq!(shown.len(), 2);
    assert!(shown.contains(&"C100|label 100|t".to_owned()), "{shown:?}");
    assert!(
        shown.contains(&"tab\t\\|back\\slash and \\N|t".to_owned()),
        "{shown:?}"
    );
    // The values of the dead row were kept, and shown rows are found by their identities.
    rig.write(
        FIRST,
        &["=700|C700|u|-", "=100|C101|u|-", "=101|C100|u|-", "-102"],
    )
    .await
    .unwrap();
    let sql = "SELECT code || '=' || label FROM lookup WHERE code IN ('C100', 'C101', 'C102', 'C700') ORDER BY 1";
    assert_eq!(
        rows(&rig.db, sql).await,
        ["C100=label 101", "C101=label 100", "C700=dead"]
    );
    assert_consistent(&rig, "changed later").await;
}

#[tokio::test]
async fn of_several_read_models_each_goes_its_way() {
    let mut rig = rig("").await;
    let folds = vec![
        (FIRST, rig.fold(FIRST, &inserts(0..600))),
        (SECOND, rig.fold(SECOND, &["+x|y"])),
    ];
    let written = rig.apply(folds).await.unwrap();
    let inserted: Vec<(ModelIndex, i64)> = written
        .iter()
        .map(|(index, of)| (*index, of.inserted))
        .collect();
    assert_eq!(inserted, [(FIRST, 600), (SECOND, 1)]);
    assert_eq!(ways(&rig).await, ["COPY"]);
    assert_eq!(value(&rig.db, "SELECT label FROM other").await, "y");
    assert_consistent(&rig, "two read models").await;
}

/// Four rows, the last one dead.
const START: [&str; 4] = ["+1|A|one|-", "+2|B|two|-", "+3|C|three|-", "+4|D|four|x"];

/// `code=label` of all but the many.
async fn shown(rig: &Rig) -> Vec<String> {
    let sql = "SELECT code || '=' || label FROM lookup WHERE length(code) = 1 ORDER BY 1";
    rows(&rig.db, sql).await
}

#[tokio::test]
async fn many_new_rows_beside_others_are_copied_past_the_stage() {
    let mut rig = rig("").await;
    rig.write(FIRST, &START).await.unwrap();
    ways(&rig).await;
    rig.writer.report_keys = 3;
    let changes = ["=1|A|eins|-", "=2|E|u|-", "-3", "=4|D|u|-"];
    let batch = |many: std::ops::Range<u32>| -> Vec<String> {
        let changes = changes.iter().map(|change| (*change).to_owned());
        inserts(many).into_iter().chain(changes).collect()
    };
    let written = rig.write(FIRST, &batch(100..5101)).await.unwrap();
    assert_eq!(ways(&rig).await, ["COPY", "SELECT"]);
    assert_eq!(
        (
            written.inserted,
            written.updated,
            written.deleted,
            written.total
        ),
        (5003, 1, 2, 5004)
    );
    assert_eq!(
        (
            written.inserted_keys.len(),
            written.updated_keys,
            written.deleted_keys.len()
        ),
        (3, vec!["A".to_owned()], 2)
    );
    assert_eq!(shown(&rig).await, ["A=eins", "D=four", "E=two"]);
    assert_consistent(&rig, "many new rows beside others").await;
    // Few of them are staged with the others.
    rig.write(FIRST, &inserts(6000..9000)).await.unwrap();
    ways(&rig).await;
    rig.write(FIRST, &batch(10_000..15_000)).await.unwrap();
    assert_eq!(ways(&rig).await, ["SELECT"]);
    assert_consistent(&rig, "few new rows beside others").await;
}

/// A key that a row of the batch gives up goes to the new row in place: nobody who refers to it
/// sees it deleted.
#[tokio::test]
async fn new_rows_wait_for_keys_that_others_of_their_batch_give_up() {
    let mut rig = rig("CREATE TABLE deleted (code text);
         CREATE FUNCTION deleted() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.deleted VALUES (OLD.code); RETURN NULL; END';
         CREATE TRIGGER deleted AFTER DELETE ON lookup FOR EACH ROW EXECUTE FUNCTION deleted();")
    .await;
    rig.write(FIRST, &START).await.unwrap();
    ways(&rig).await;
    let mut batch = inserts(100..5101);
    batch.extend(["=1|Z|u|-", "+9000|A|new|-", "=2|B|u|x", "+9001|B|new too|-"].map(str::to_owned));
    rig.write(FIRST, &batch).await.unwrap();
    assert_eq!(ways(&rig).await, ["SELECT"]);
    assert_eq!(
        shown(&rig).await,
        ["A=new", "B=new too", "C=three", "Z=one"]
    );
    assert_eq!(value(&rig.db, "SELECT count(*) FROM deleted").await, "0");
    assert_consistent(&rig, "keys given up").await;
}

/// What is checked at the commit is checked of both together.
#[tokio::test]
async fn constraints_that_are_checked_late_see_new_rows_and_others_together() {
    let mut rig = rig("ALTER TABLE lookup ADD UNIQUE (label) DEFERRABLE INITIALLY DEFERRED;").await;
    rig.write(FIRST, &START).await.unwrap();
    ways(&rig).await;
    let mut batch = inserts(100..5101);
    batch.extend(["=1|A|given up|-", "+9000|E|one|-"].map(str::to_owned));
    rig.write(FIRST, &batch).await.unwrap();
    assert_eq!(ways(&rig).await, ["COPY", "SELECT"]);
    assert_eq!(
        shown(&rig).await,
        ["A=given up", "B=two", "C=three", "E=one"]
    );
    let mut batch = inserts(20_000..25_001);
    batch.extend(["=1|A|again|-", "+9002|F|two|-"].map(str::to_owned));
    let written = rig.write(FIRST, &batch).await.unwrap();
    assert_eq!(
        (written.inserted, written.updated, written.rejected_in_all),
        (5001, 1, 1)
    );
    assert_eq!(shown(&rig).await, ["A=again", "B=two", "C=three", "E=one"]);
}

/// Rows that are not all new are told from others by map and lookup, whatever the stream says.
#[tokio::test]
async fn rows_that_are_known_after_all_go_by_the_stage() {
    let known = "+1|C5|one|-";
    // What was written before, what somebody did to the tables, and what is shown.
    let cases: [(&str, &[&str], &str, &[&str]); 3] = [
        (
            "a key in the lookup that nobody claims",
            &[],
            "INSERT INTO lookup VALUES ('C5', 'foreign')",
            &["label 5"],
        ),
        // Of two live rows with one key the one with the smallest identity is shown.
        ("a key of another row", &[known], "", &["one"]),
        (
            "an identity that the map has",
            &[known],
            "UPDATE cdc.map_1 SET i1 = 5",
            &["label 5"],
        ),
    ];
    for (case, start, by_hand, expected) in cases {
        let mut rig = rig("").await;
        rig.write(FIRST, start).await.unwrap();
        rig.db.batch_execute(by_hand).await.unwrap();
        ways(&rig).await;
        rig.write(FIRST, &inserts(5..605)).await.unwrap();
        assert!(!ways(&rig).await.contains(&"COPY".to_owned()), "{case}");
        let found = rows(&rig.db, "SELECT label FROM lookup WHERE code = 'C5'").await;
        assert_eq!(found, expected, "{case}");
        let shown = value(&rig.db, "SELECT count(*) FROM cdc.map_1 WHERE state = 's'").await;
        assert_eq!(shown, "600", "{case}");
    }
}

/// A batch that is rejected is not tried again with each one that follows.
#[tokio::test]
async fn rejected_batches_are_put_off() {
    let mut rig = rig("").await;
    let tried = async |rig: &mut Rig, round: u32| -> bool {
        // Under a key that the lookup has.
        let from = 1000 * round;
        let sql = format!("INSERT INTO lookup VALUES ('C{from}', 'foreign')");
        rig.db.batch_execute(&sql).await.unwrap();
        let before = value(&rig.db, "SELECT last_value FROM tries").await;
        rig.write(FIRST, &inserts(from..from + 501)).await.unwrap();
        before != value(&rig.db, "SELECT last_value FROM tries").await
    };
    // What a sequence gave stays when the try is undone.
    rig.db
        .batch_execute(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION tried() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF current_query() LIKE ''COPY%'' THEN PERFORM nextval(''public.tries''); END IF; RETURN NULL; END';
             CREATE TRIGGER tried BEFORE INSERT ON lookup EXECUTE FUNCTION tried();
             SELECT nextval('tries');",
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    for round in 1..9 {
        seen.push(tried(&mut rig, round).await);
    }
    assert_eq!(seen, [true, false, true, false, false, true, false, false]);
}

#[tokio::test]
async fn rejected_rows_are_set_apart_and_late_constraints_name_the_read_model() {
    let mut checked = rig("ALTER TABLE lookup ADD CHECK (label <> 'label 7');").await;
    let written: Written = checked.write(FIRST, &inserts(0..600)).await.unwrap();
    assert_eq!((written.inserted, written.rejected_in_all), (599, 1));

    let mut late = Rig::new(
        "CREATE TABLE kind (label text PRIMARY KEY);
         INSERT INTO kind SELECT 'label ' || n FROM generate_series(0, 599) n WHERE n <> 7;
         CREATE TABLE lookup (code varchar(10) PRIMARY KEY, label text REFERENCES kind DEFERRABLE INITIALLY DEFERRED,
             synced timestamptz);",
    )
    .await;
    late.add(&stopping(labels(false))).await;
    let error = late.write(FIRST, &inserts(0..600)).await.unwrap_err();
    assert_eq!(
        (error.class(), error.sqlstate()),
        (Class::Rejected, Some("23503"))
    );
    assert!(
        error.to_string().contains("read model \"public.lookup\""),
        "{error}"
    );
    assert_eq!(late.writer.culprit(), Some(FIRST));
    assert_eq!(value(&late.db, "SELECT count(*) FROM lookup").await, "0");
}

/// What arrives is the same, byte for byte, as what comes by the stage.
#[tokio::test]
async fn types_arrive_as_by_the_stage() {
    let types = [
        ("n", "numeric(10,2)", "1.005"),
        ("v", "varchar(3)", "ab "),
        ("c", "char(5)", "ab"),
        ("t", "timestamptz(0)", "2020-01-01 00:00:00.6+00"),
        ("i", "interval", "1 day 24:00:00"),
        ("a", "numeric(4,1)[]", "{1.25,NULL,2}"),
        ("b", "bytea", r"\x0001ff"),
        ("j", "json", r#"{"a":  1, "b": "\t"}"#),
        ("f", "float8", "-0"),
        ("d", "small", "12.345"),
        // Types with a function that casts from text, which reads otherwise.
        ("r0", "regclass", "-"),
        ("r1", "regclass", "1234567890"),
        ("r2", "regclass", "pg_class"),
        ("c1", "\"char\"", "x"),
        ("m", "name", r#"a "quoted" \ name, {}"#),
        ("x", "xml", "<a/>text"),
        ("o", "own", r#"(1,"a \\ ""b""")"#),
    ];
    let definitions: Vec<String> = types
        .iter()
        .map(|(name, of, _)| format!("{name} {of}"))
        .collect();
    let definitions = definitions.join(", ");
    let mut rig = Rig::new(&format!(
        "CREATE DOMAIN small AS numeric(4,1) CHECK (VALUE < 100); CREATE TYPE own AS (n int, t text);
         CREATE FUNCTION own(text) RETURNS own LANGUAGE sql AS 'SELECT row(0, ''by the cast'')::own'; CREATE CAST (text AS own) WITH FUNCTION own(text);
         CREATE TABLE copied (k numeric(8,1) PRIMARY KEY, {definitions});
         CREATE TABLE staged (k numeric(8,1) PRIMARY KEY, {definitions});"
    ))
    .await;
    let names: Vec<&str> = ["k"]
        .into_iter()
        .chain(types.iter().map(|(name, ..)| *name))
        .collect();
    let columns: Vec<(&str, &str)> = names.iter().map(|name| (*name, "text")).collect();
    let projected: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).collect();
    let values: Vec<&str> = types.iter().map(|(.., value)| *value).collect();
    let insert = |id: u32| format!("+{id}|{}", values.join("|"));
    for table in ["copied", "staged"] {
        rig.add(&shape(table, &columns, &["k"], &projected, 1, false))
            .await;
    }
    let many: Vec<String> = (0..600).map(insert).collect();
    rig.write(FIRST, &many).await.unwrap();
    // As one statement, and staged by one.
    for some in many.chunks(300) {
        rig.write(SECOND, some).await.unwrap();
    }
    let both = vec![
        (FIRST, rig.fold(FIRST, &[insert(600)])),
        (SECOND, rig.fold(SECOND, &[insert(600)])),
    ];
    rig.apply(both).await.unwrap();
    let all = |table: &str| format!("SELECT x::text FROM {table} x ORDER BY k");
    let copied = rows(&rig.db, &all("copied")).await;
    assert_eq!(copied.len(), 601);
    assert_eq!(copied, rows(&rig.db, &all("staged")).await);
}
