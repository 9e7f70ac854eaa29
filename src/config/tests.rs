//! Layers, mistakes and warnings of the configuration, case by case.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([("HOME".to_owned(), "/nonexistent".to_owned())]);
    for (name, value) in pairs {
        variables.insert((*name).to_owned(), (*value).to_owned());
    }
    variables
}

/// A directory of its own, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cdc-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const URLS: [(&str, &str); 2] = [
    ("CDC_SOURCE_URL", "postgres://s:hunter2@master/app"),
    (
        "CDC_TARGET_URL",
        "host=core user=t password=hunter3 dbname=core",
    ),
];

fn load_text(text: &str) -> Result<Loaded> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let scratch = Scratch::new(&format!("text{number}"));
    let file = scratch.file("cdc.toml", text);
    load_with(&Flags::default(), &variables(&URLS), Path::new(&file))
}

fn mistakes(text: &str) -> String {
    let error = load_text(text).unwrap_err();
    assert_eq!(error.class(), crate::error::Class::Configuration);
    let shown = format!("{error:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    shown
}

#[test]
fn two_urls_are_enough() {
    let loaded = load_with(
        &Flags::default(),
        &variables(&URLS),
        Path::new("/nowhere/cdc.toml"),
    )
    .unwrap();
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let settings = loaded.settings;
    assert_eq!(
        settings.read_models,
        [crate::settings::ReadModelSettings::labels()]
    );
    assert_eq!(settings.source.conninfo.to_string(), "master:5432/app as s");
    assert_eq!(settings.target.conninfo.to_string(), "core:5432/core as t");
    assert_eq!(
        (
            settings.source.slot.as_str(),
            settings.source.publication.as_str()
        ),
        ("cdc", "cdc")
    );
    assert_eq!(settings.target.schema, "cdc");
    assert!(settings.target.synchronous_commit && !settings.source.publish_projected_columns);
    assert_eq!(settings.status_interval, std::time::Duration::from_secs(10));
}

#[test]
fn example_is_the_default() {
    let loaded = load_text(EXAMPLE).unwrap();
    let without = load_with(&Flags::default(), &variables(&URLS), Path::new("/nowhere")).unwrap();
    assert_eq!(loaded.settings, without.settings);
    assert_eq!(
        loaded.warnings,
        Vec::<String>::new(),
        "it holds no password"
    );
}

/// Every line of the example that is commented out is a right one.
#[test]
fn every_default_of_the_example_is_what_it_says() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let is_setting = bare.starts_with('[')
                || bare
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' '));
            let alternative = ["url_file", "password_file", "columns = {"]
                .iter()
                .any(|key| bare.starts_with(key));
            format!(
                "{}\n",
                if is_setting && !alternative {
                    bare
                } else {
                    line
                }
            )
        })
        .collect();
    assert!(uncommented.contains("\nschedule = "), "{uncommented}");
    let loaded = load_text(&uncommented).unwrap();
    let without = load_with(&Flags::default(), &variables(&URLS), Path::new("/nowhere")).unwrap();
    assert_eq!(loaded.settings, without.settings);
}

#[test]
fn flags_override_environment_and_environment_overrides_file() {
    let scratch = Scratch::new("layers");
    let file = scratch.file(
        "cdc.toml",
        "log_level = 'warn'\n[source]\nurl = 'host=file'\nslot = 'file'\npublication = 'file'\n[target]\nurl = 'host=file'\n",
    );
    let flags = Flags {
        config: Some(PathBuf::from(&file)),
        source_url: Some("host=flag".to_owned()),
        target_url: None,
        log_level: Some("debug".to_owned()),
    };
    let environment = variables(&[
        ("CDC_SOURCE_URL", "host=env"),
        ("CDC_SLOT", "env"),
        ("CDC_SCHEMA", ""),
        ("PGUSER", "ann"),
    ]);
    let settings = load_with(&flags, &environment, Path::new("/nowhere"))
        .unwrap()
        .settings;
    assert_eq!(settings.source.conninfo.to_string(), "flag:5432/ann as ann");
    assert_eq!(settings.target.conninfo.to_string(), "file:5432/ann as ann");
    assert_eq!(settings.source.slot, "env");
    assert_eq!(settings.source.publication, "file");
    assert_eq!(settings.target.schema, "cdc");
    assert_eq!(settings.log_level, "debug");
}

#[test]
fn log_level_is_one_that_the_log_can_read() {
    let level = |text: &str| load_text(text).unwrap().settings.log_level;
    assert_eq!(level(""), "info");
    assert_eq!(level("log_level = 'cdc::run=trace'"), "cdc::run=trace");
    let shown = mistakes("log_level = 'cdc=loud'");
    assert!(shown.contains("cdc.toml:1: log_level"), "{shown}");
    assert!(shown.contains("error, warn, info"), "{shown}");
}

#[test]
fn secrets_come_from_files_without_their_last_newline() {
    let scratch = Scratch::new("secrets");
    let url = scratch.file("url", "postgres://ann@db/app\n");
    let password = scratch.file("password", " p w \n");
    let load = |pairs: &[(&str, &str)]| {
        let mut all = URLS.to_vec();
        all.retain(|(name, _)| pairs.iter().all(|(other, _)| !other.starts_with(name)));
        all.extend_from_slice(pairs);
        load_with(&Flags::default(), &variables(&all), Path::new("/nowhere"))
    };
    let loaded = load(&[
        ("CDC_SOURCE_URL_FILE", &url),
        ("CDC_SOURCE_PASSWORD_FILE", &password),
    ])
    .unwrap();
    let conninfo = &loaded.settings.source.conninfo;
    assert_eq!(conninfo.to_string(), "db:5432/app as ann");
    assert_eq!(conninfo.password.as_ref().unwrap().expose(), " p w ");
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);

    let loaded = load(&[("CDC_SOURCE_PASSWORD", "direct")]).unwrap();
    let password_set = loaded.settings.source.conninfo.password.unwrap();
    assert_eq!(
        password_set.expose(),
        "direct",
        "takes the place of the URL's"
    );

    let empty = scratch.file("empty", "\n");
    for (pairs, expected) in [
        (
            [
                ("CDC_SOURCE_URL", "host=a"),
                ("CDC_SOURCE_URL_FILE", url.as_str()),
            ],
            "both CDC_SOURCE_URL and CDC_SOURCE_URL_FILE are set",
        ),
        (
            [
                ("CDC_TARGET_PASSWORD", "a"),
                ("CDC_TARGET_PASSWORD_FILE", url.as_str()),
            ],
            "both CDC_TARGET_PASSWORD and CDC_TARGET_PASSWORD_FILE are set",
        ),
        (
            [("CDC_SOURCE_URL_FILE", "/nowhere/url"), ("CDC_SLOT", "a")],
            "CDC_SOURCE_URL_FILE: cannot read file \"/nowhere/url\"",
        ),
        (
            [
                ("CDC_SOURCE_PASSWORD_FILE", empty.as_str()),
                ("CDC_SLOT", "a"),
            ],
            "is empty",
        ),
    ] {
        let shown = format!("{:?}", load(&pairs).unwrap_err());
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn missing_urls_are_told_with_advice_and_pg_variables_do_not_stand_in() {
    let environment = variables(&[("PGHOST", "db"), ("PGDATABASE", "app"), ("PGUSER", "ann")]);
    let error = load_with(&Flags::default(), &environment, Path::new("/nowhere")).unwrap_err();
    let shown = format!("{error:?}");
    assert!(
        shown.contains("2 mistakes") && shown.contains("URL of the source database is missing"),
        "{shown}"
    );
    assert!(shown.contains("CDC_TARGET_URL_FILE"), "{shown}");
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let shown = mistakes(
        "[source]\nslott = 'x'\nslot = 'Bad-Slot'\nurl = 'postgres://a:hunter2@b'\n[target]\nschema = 5\n\n[[read_model]]\nsource = 'a.b.c'\nkey = []\ncolumns = ['a', 'a']\n",
    );
    for expected in [
        "7 mistakes",
        "cdc.toml:2: unrecognized key \"source.slott\"\n    Did you mean \"slot\"?",
        "cdc.toml:3: source.slot: \"Bad-Slot\" is no name for a slot",
        "cdc.toml:6: target.schema: expected a string in quotes, found integer",
        "cdc.toml:8: read_model[0]: \"target\" is missing",
        "cdc.toml:9: read_model[0].source: cannot read \"a.b.c\" as the name of a table",
        "cdc.toml:10: read_model[0].key: expected at least one column",
        "cdc.toml:11: read_model[0].columns: column \"a\" is given twice",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}

#[test]
fn each_mistake_is_told() {
    let model = |more: &str| format!("[[read_model]]\nsource = 'a'\ntarget = 'b'\n{more}");
    for (text, expected) in [
        ("slot = 'x'".to_owned(), "unrecognized key \"slot\""),
        (
            "[http]\nlisten = 'x'".to_owned(),
            "unrecognized key \"http\"",
        ),
        ("[source".to_owned(), "cdc.toml:1: "),
        ("[source]\nurl = 'hunter2".to_owned(), "cdc.toml:2: "),
        (
            "[source]\nurl = 'x'\nurl_file = 'y'".to_owned(),
            "both url and url_file are given",
        ),
        (
            "source = 5".to_owned(),
            "source: expected a table, found integer",
        ),
        ("[read_model]".to_owned(), "two brackets"),
        ("read_model = []".to_owned(), "at least one read model"),
        (
            "[source]\npublish_columns = 'some'".to_owned(),
            "expected \"all\" or \"projected\", found \"some\"",
        ),
        (
            "[target]\nsynchronous_commit = 'maybe'".to_owned(),
            "expected \"on\" or \"off\"",
        ),
        ("[target]\nschema = 'pg_x'".to_owned(), "PostgreSQL's own"),
        (
            "[source]\npublication = ''".to_owned(),
            "expected 1 to 63 bytes, found 0",
        ),
        (
            format!("[source]\npublication = '{}'", "ä".repeat(32)),
            "found 64",
        ),
        (
            format!("[source]\nslot = '{}'", "a".repeat(64)),
            "no name for a slot",
        ),
        (
            "[resync]\nschedule = '0 2 * *'".to_owned(),
            "expected five fields, found 4",
        ),
        (
            "[resync]\nschedule = '0 25 * * *'".to_owned(),
            "cannot read the schedule",
        ),
        (
            "[resync]\ntimezone = 'Mars/Base'".to_owned(),
            "cannot find the time zone \"Mars/Base\"",
        ),
        (
            "[source]\nmax_retained_wal = '10'".to_owned(),
            "expected \"off\" or a size from \"1MB\" to \"1024TB\"",
        ),
        (
            "[source]\nmax_retained_wal = '1kB'".to_owned(),
            "source.max_retained_wal: expected",
        ),
        (
            "[source]\nmax_retained_wal = '99999999999999999999GB'".to_owned(),
            "such as \"10GB\"",
        ),
        (
            "[source]\nfailover = 'maybe'".to_owned(),
            "source.failover: expected \"on\" or \"off\"",
        ),
        (
            "[resync]\njitter = '13h'".to_owned(),
            "resync.jitter: expected a time from \"0s\" to \"12h\"",
        ),
        ("[resync]\njitter = 'some'".to_owned(), "found \"some\""),
        ("status_interval = '10'".to_owned(), "such as \"10s\""),
        (
            "status_interval = '2h'".to_owned(),
            "from \"100ms\" to \"1h\"",
        ),
        (
            model("key = ['x']\ncolumns = ['y']"),
            "key column \"x\" is not one of \"columns\"",
        ),
        (
            model("key = ['y', 'y']\ncolumns = ['y']"),
            "column \"y\" is given twice",
        ),
        (
            model("key = ['y']\ncolumns = ['y']\nsynced_at = 'y'"),
            "also one of \"columns\"",
        ),
        (
            model("key = ['y']\ncolumns = ['y', 5]"),
            "expected an array of strings",
        ),
        (
            model("key = ['y']\ncolumns = { y = 5 }"),
            "expected an array of strings",
        ),
        (
            model("key = 5\ncolumns = ['y']"),
            "key: expected an array of strings, found integer",
        ),
        (
            model("key = ['y']\ncolumns = ['y']\nsoft_delete = ''"),
            "is no name",
        ),
        (model("key = ['']\ncolumns = ['']"), "is no name"),
        (
            format!("{0}\n{0}", model("key = ['y']\ncolumns = ['y']")),
            "a second read model with lookup table public.b",
        ),
    ] {
        let shown = mistakes(&text);
        assert!(shown.contains(expected), "{text}: {expected} in {shown}");
    }
}

#[test]
fn read_models_are_read_in_full() {
    let settings = load_text(
        "status_interval = '500ms'\n[source]\npublish_columns = 'projected'\nmax_retained_wal = '10 GB'\nfailover = 'off'\n[target]\nsynchronous_commit = 'off'\n\
         [resync]\nschedule = 'off'\ntimezone = 'Europe/Berlin'\njitter = '30min'\n\
         [[read_model]]\nsource = 'sales.\"Orders\"'\ntarget = 'orders_lookup'\nkey = 'no'\n\
         columns = { title = 'name', no = 'id' }\n[[read_model]]\nsource = 'b'\ntarget = 'c'\nkey = ['x']\ncolumns = ['x']\n",
    )
    .unwrap()
    .settings;
    assert_eq!(settings.resync.schedule, None);
    assert_eq!(settings.resync.timezone, "Europe/Berlin");
    assert_eq!(settings.source.max_retained_wal, Some(10 << 30));
    assert!(!settings.source.failover);
    assert_eq!(settings.resync.jitter, std::time::Duration::from_secs(1800));
    assert_eq!(
        settings.status_interval,
        std::time::Duration::from_millis(500)
    );
    assert!(settings.source.publish_projected_columns && !settings.target.synchronous_commit);
    let model = &settings.read_models[0];
    assert_eq!(model.source.to_string(), "sales.\"Orders\"");
    assert_eq!(model.key, ["no"]);
    let columns: Vec<_> = model
        .columns
        .iter()
        .map(|c| (c.target.as_str(), c.source.as_str()))
        .collect();
    assert_eq!(columns, [("title", "name"), ("no", "id")]);
    assert_eq!((&model.soft_delete, &model.synced_at), (&None, &None));

    // What is printed as the configuration in effect gives the same settings again.
    let printed = Effective(&settings).to_string();
    assert!(!printed.contains("hunter"), "{printed}");
    let again = {
        let mut mistakes = Mistakes::default();
        let raw = file::parse("printed", &printed, &mut mistakes).unwrap();
        build::build(raw, &variables(&[]), &mut mistakes, &mut Vec::new()).unwrap()
    };
    let mut expected = settings.clone();
    expected.source.conninfo.password = Some(crate::conninfo::Secret::new("****"));
    expected.target.conninfo.password = Some(crate::conninfo::Secret::new("****"));
    assert_eq!(again, expected);
}

#[test]
fn misspelled_variables_and_open_files_are_warned_of() {
    let mut pairs = URLS.to_vec();
    pairs.extend([
        ("CDC_SOURCE_URI", "x"),
        ("CDC_SOMETHING_ELSE_ALTOGETHER", "x"),
    ]);
    let loaded = load_with(&Flags::default(), &variables(&pairs), Path::new("/nowhere")).unwrap();
    assert_eq!(
        loaded.warnings,
        ["Environment variable CDC_SOURCE_URI is not read; did you mean CDC_SOURCE_URL?"]
    );
    let loaded = load_text("[source]\nurl = 'postgres://a:hunter2@b/c'\n").unwrap();
    assert!(
        loaded.warnings[0].contains("can be read by others"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn named_file_must_be_there() {
    let flags = Flags {
        config: Some(PathBuf::from("/nowhere/cdc.toml")),
        ..Flags::default()
    };
    let error = load_with(&flags, &variables(&URLS), Path::new("/nowhere")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read configuration file \"/nowhere/cdc.toml\"")
    );
}
