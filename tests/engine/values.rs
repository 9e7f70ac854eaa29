//! A type and values of it, for `types`: what a type's text can look like, and what a parser of it
//! may get wrong.

/// Types of users, at both sides.
pub const TYPES: &str = r"
    CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION isn;
    CREATE EXTENSION seg;
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('sad', 'it''s \ok', 'Happy, ä');
    CREATE DOMAIN shop.short AS varchar(5) CHECK (VALUE <> 'never');
    CREATE DOMAIN shop.present AS shop.mood NOT NULL;
    CREATE DOMAIN shop.several AS int[] CHECK (cardinality(VALUE) < 9);
    CREATE TYPE shop.place AS (street text, tags text[], at timestamptz, mood shop.mood, share float8);
    CREATE TYPE shop.times AS RANGE (subtype = timestamptz);
    CREATE TYPE shop.nested AS (here shop.place, there shop.place[]);
";

/// A type and values of it, each as SQL text without the cast. NULL comes by itself, where the type
/// takes it.
pub const VALUES: &[(&str, &[&str])] = &[
    ("boolean", &["t", "f"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", &["0", "4294967295"]),
    (
        "numeric",
        &[
            "NaN",
            "0.00",
            "-0.000",
            "1e-500",
            "1.0",
            "1.00",
            "99999999999999999999.5",
        ],
    ),
    ("numeric(10,2)", &["1.5", "-99999999.99", "NaN"]),
    (
        "real",
        &[
            "1e-45",
            "3.4028235e38",
            "-0",
            "0.1",
            "NaN",
            "Infinity",
            "16777217",
        ],
    ),
    (
        "double precision",
        &[
            "5e-324",
            "1.7976931348623157e308",
            "-0",
            "0",
            "0.1",
            "0.30000000000000004",
            "NaN",
            "-Infinity",
            "1e15",
            "1e16",
        ],
    ),
    ("money", &["-1234567.89", "0", "92233720368547758.07"]),
    (
        "text",
        &[
            "",
            " ",
            "a\tb\\N\n\\.\r\\",
            "NULL",
            "null",
            "{}",
            "'\"$cdc$\"'",
            "ä€𝄞\u{202e}e\u{301}",
            "\u{1}\u{7f}\u{2028}",
        ],
    ),
    ("varchar(3)", &["", "ä€𝄞", "   "]),
    ("char(5)", &["", "ab", "   "]),
    ("char", &["x"]),
    ("\"char\"", &["", "x", "\\"]),
    ("name", &["", "A \"name\""]),
    ("bytea", &[r"\x", r"\x00ff5c27", r"\x5c5c"]),
    (
        "date",
        &[
            "4713-01-01 BC",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "2026-02-03",
        ],
    ),
    ("time", &["00:00:00", "24:00:00", "23:59:59.999999"]),
    (
        "timetz",
        &["00:00:00+15:59", "24:00:00-15:59:59", "12:00:00.5+00"],
    ),
    (
        "timestamp",
        &[
            "4713-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
            "2026-02-03 04:05:06.7",
        ],
    ),
    ("timestamp(0)", &["2026-02-03 04:05:06.7"]),
    (
        "timestamptz",
        &[
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "infinity",
            "0044-03-15 12:00:00+00 BC",
            "2026-03-29 02:30:00+01",
        ],
    ),
    (
        "interval",
        &[
            "1 day",
            "24:00:00",
            "-1 mons +2 days -03:04:05.000001",
            "178000000 years",
            "1 year -1 mons",
            "-00:00:01",
            "0",
        ],
    ),
    ("uuid", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]),
    (
        "json",
        &[
            "{\"a\" : 1, \"a\": 2}",
            "null",
            " [1.0, 1.00, \"\\u00e4\"] ",
        ],
    ),
    (
        "jsonb",
        &[
            "{\"b\": 1.00, \"a\": [null, \"\\\"\"]}",
            "null",
            "\"\"",
            "1e5",
        ],
    ),
    ("jsonpath", &["$.a[*] ? (@ > 1)", "lax $"]),
    (
        "xml",
        &["<a b=\"1\">&lt; ä </a>", "text only", "<!-- c --><a/>"],
    ),
    ("bit(3)", &["101"]),
    ("bit varying", &["", "0101010101"]),
    (
        "inet",
        &["10.0.0.1", "10.0.0.1/8", "::ffff:1.2.3.4", "2001:db8::/32"],
    ),
    ("cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("macaddr", &["08-00-2b-01-02-03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("point", &["(0.1,-0)", "(Infinity,NaN)"]),
    ("line", &["{1,-1,0.1}"]),
    ("lseg", &["[(0,0),(1,0.1)]"]),
    ("box", &["(1,1),(0,0.1)"]),
    ("path", &["((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"]),
    ("polygon", &["((0,0),(1,1),(2,0))"]),
    ("circle", &["<(0,0.1),2>"]),
    ("tsvector", &["'a':1A,3 'it''s':2B 'x y'", ""]),
    ("tsquery", &["'a' & !'b' | 'c':*AB <2> 'd'"]),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"]),
    ("xid", &["4294967295"]),
    ("xid8", &["18446744073709551615"]),
    ("tid", &["(4294967295,65535)"]),
    ("pg_snapshot", &["10:20:10,14,15"]),
    ("int2vector", &["1 2 -3", ""]),
    ("oidvector", &["1 4294967295", ""]),
    ("regclass", &["pg_catalog.pg_class", "-"]),
    ("regtype", &["pg_catalog.int4", "timestamp with time zone"]),
    ("regproc", &["pg_catalog.now"]),
    ("regconfig", &["english"]),
    ("int4range", &["[1,5)", "empty", "(,)"]),
    ("numrange", &["(1.0,1.10]", "[NaN,NaN]"]),
    (
        "tsrange",
        &[
            "[2026-01-01 00:00:00,infinity)",
            "(,\"2026-01-01 00:00:00.5\"]",
        ],
    ),
    (
        "tstzrange",
        &["[2026-01-01 00:00:00+05,2026-01-02 00:00:00+05)"],
    ),
    (
        "daterange",
        &["[2026-01-01,2026-01-05]", "[0044-01-01 BC,infinity]"],
    ),
    (
        "int4[]",
        &["{}", "{1,NULL,3}", "[0:1][-1:0]={{1,2},{3,NULL}}"],
    ),
    (
        "text[]",
        &[
            "{\"\",NULL,\"NULL\",\"a,b\",\"c \\\"d\\\" \\\\e\",\" f\"}",
            "[2:2]={x}",
        ],
    ),
    ("bytea[]", &["{\"\\\\x00ff\",NULL}"]),
    ("timestamptz[]", &["{infinity,\"2026-01-01 00:00:00+05\"}"]),
    ("float8[]", &["{-0,0.1,NaN}"]),
    ("interval[]", &["{\"1 day -01:00:00\"}"]),
    ("json[]", &["{\"{\\\"a\\\": 1}\"}"]),
    ("box[]", &["{(1,1),(0,0);(2,2),(1,1)}"]),
    ("citext", &["mr", "MR"]),
    ("hstore", &["a=>NULL, \"b \\\"c\"=>\"d=>e\"", ""]),
    ("ltree", &["Top.Science.Astronomy", ""]),
    ("cube", &["(0.1, 2),(3, 4)"]),
    ("isbn13", &["978-0-393-04002-9"]),
    ("seg", &["5(+-)0.3", "1.50"]),
    ("shop.mood", &["sad", "it's \\ok", "Happy, ä"]),
    ("shop.mood[]", &["{sad,\"it's \\\\ok\",NULL}"]),
    ("shop.short", &["", "ä€𝄞 "]),
    ("shop.short[]", &["{\"a \",NULL}"]),
    ("shop.several", &["{}", "[5:6]={1,NULL}"]),
    (
        "shop.place",
        &[
            "(\"a \"\"b\"\", \\\\ c\",\"{x,NULL}\",\"2026-01-01 00:00:00+05\",sad,0.1)",
            "(,,,,)",
            "(\"\",{},-infinity,,-0)",
        ],
    ),
    ("shop.place[]", &["{\"(a,,,,NaN)\",NULL}"]),
    (
        "shop.nested",
        &["(\"(x,{y},,sad,)\",\"{\"\"(z,,,,)\"\"}\")"],
    ),
    ("shop.times", &["[2026-01-01 00:00:00+05,)"]),
    ("shop.present", &["sad", "Happy, ä"]),
];

/// From 14 on.
pub const MULTIRANGES: &[(&str, &[&str])] = &[
    ("int4multirange", &["{}", "{[1,3),[5,7)}"]),
    (
        "tstzmultirange",
        &["{[2026-01-01 00:00:00+05,2026-01-02 00:00:00+05),[infinity,]}"],
    ),
    ("nummultirange[]", &["{\"{[1.0,1.10]}\",NULL}"]),
];
