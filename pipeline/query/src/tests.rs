//! Tests through the door of this crate.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampMicrosecondArray, new_null_array};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::execution::context::SessionContext;
use event::{Column, ColumnType, TableSchema};
use futures::StreamExt;

use crate::*;

fn schema(name: &str, own: &[(&str, ColumnType)]) -> Arc<TableSchema> {
    let column = |name: &str, kind, common| Column {
        name: name.into(),
        kind,
        nullable: true,
        common,
        doc: String::new(),
        ocsf: None,
        values: Vec::new(),
        level: None,
    };
    let mut columns = vec![
        column("time", ColumnType::Timestamp, true),
        column("source_watermark", ColumnType::Timestamp, true),
        column("raw", ColumnType::String, true),
        column("src_endpoint_ip", ColumnType::String, true),
        column("row_hash", ColumnType::Hash, true),
    ];
    columns.extend(own.iter().map(|(name, kind)| column(name, *kind, false)));
    Arc::new(TableSchema::new(name.into(), String::new(), columns))
}

fn schemas() -> Vec<Arc<TableSchema>> {
    let text = ColumnType::String;
    vec![
        schema("kubernetes", &[("verb", text), ("stage", text), ("objectref_subresource", text)]),
        schema("cloudtrail", &[("event_name", text), ("code", ColumnType::Int64)]),
    ]
}

/// Rows of text by column name; `code` and times are numbers.
fn rows(schema: &TableSchema, cells: &[&[(&str, &str)]]) -> RecordBatch {
    let cell = |row: usize, name: &str| cells[row].iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let columns = schema.columns.iter().map(|c| -> ArrayRef {
        let texts = || (0..cells.len()).map(|row| cell(row, &c.name));
        let numbers = || texts().map(|t| t.map(|t| t.parse::<i64>().expect("a number")));
        match c.kind {
            ColumnType::String => Arc::new(texts().collect::<StringViewArray>()),
            ColumnType::Int64 => Arc::new(numbers().collect::<Int64Array>()),
            ColumnType::Timestamp => Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            _ => new_null_array(&c.kind.arrow(), cells.len()),
        }
    });
    RecordBatch::try_new(schema.arrow(), columns.collect()).expect("columns fit")
}

fn context(limits: &Limits) -> SessionContext {
    let schemas = schemas();
    let kubernetes = rows(
        &schemas[0],
        &[
            &[("time", "1"), ("verb", "get"), ("stage", "RequestReceived"), ("raw", r#"{"a":{"b":"x"},"n":7}"#)],
            &[("time", "2"), ("verb", "get"), ("stage", "ResponseComplete"), ("src_endpoint_ip", "10.1.2.3")],
            &[("time", "3"), ("verb", "watch"), ("stage", "ResponseStarted"), ("src_endpoint_ip", "8.8.8.8")],
            &[("time", "4"), ("verb", "watch"), ("stage", "ResponseComplete"), ("src_endpoint_ip", "nonsense")],
            &[("time", "5"), ("verb", "create"), ("stage", "ResponseStarted"), ("objectref_subresource", "exec")],
            &[("time", "6"), ("verb", "create"), ("stage", "ResponseComplete"), ("objectref_subresource", "exec")],
            &[("time", "7"), ("verb", "list"), ("stage", "Panic"), ("source_watermark", "-9223372036854775808")],
        ],
    );
    let cloudtrail = rows(&schemas[1], &[&[("time", "8"), ("event_name", "StopLogging"), ("code", "5")]]);
    let ctx = session(limits);
    register_tables(&ctx, &schemas, &|name| match name {
        "kubernetes" => batch_table(schemas[0].arrow(), vec![kubernetes.clone()]),
        _ => batch_table(schemas[1].arrow(), vec![cloudtrail.clone()]),
    })
    .expect("tables register");
    ctx
}

/// The rows as text, columns separated by `|`.
async fn run(sql: &str) -> Result<Vec<String>, QueryError> {
    run_within(sql, HuntLimits::default()).await
}

async fn run_within(sql: &str, limits: HuntLimits) -> Result<Vec<String>, QueryError> {
    let ctx = context(&Limits::HUNT);
    let plan = plan_hunt(&ctx, sql).await?;
    let mut stream = run_hunt(&ctx, plan, limits).await?;
    let mut lines = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).expect("shows"));
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines)
}

async fn check(sql: &str, expected: &[&str]) {
    let got = run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(got, expected, "{sql}");
}

#[tokio::test]
async fn hostile_statements_are_refused() {
    let dir = std::env::temp_dir().join("stakeout-query-copy");
    let copy = format!("COPY kubernetes TO '{}' STORED AS PARQUET", dir.display());
    for sql in [
        copy.as_str(),
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "INSERT INTO kubernetes SELECT * FROM kubernetes",
        "DELETE FROM kubernetes",
        "UPDATE kubernetes SET verb = 'x'",
        "TRUNCATE TABLE kubernetes",
        "DROP TABLE kubernetes",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE kubernetes",
        "SELECT * INTO t FROM kubernetes",
        "EXPLAIN INSERT INTO kubernetes SELECT * FROM kubernetes",
        "EXPLAIN COPY kubernetes TO '/tmp/x.csv'",
        "WITH x AS (INSERT INTO kubernetes SELECT * FROM kubernetes) SELECT 1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "START TRANSACTION",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/tmp/x.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM parquet_metadata('/tmp/x')",
        "SELECT input_file_name() FROM kubernetes",
        "SELECT * FROM datafusion.public.kubernetes_",
        "",
        ";",
        "-- nothing",
    ] {
        assert!(run(sql).await.is_err(), "{sql} was not refused");
    }
    assert!(!dir.exists());
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(run(&deep).await.is_err());
}

#[tokio::test]
async fn hunts_may_look_around_but_rules_may_not() {
    for sql in ["EXPLAIN SELECT 1", "SHOW TABLES", "SELECT table_name FROM information_schema.tables"] {
        assert!(run(sql).await.is_ok(), "{sql}");
        assert!(plan_rule(&context(&Limits::RULE), sql).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn rules_must_be_steady() {
    let ctx = context(&Limits::RULE);
    let refused = [
        ("SELECT time FROM kubernetes WHERE time > now()", "now"),
        ("SELECT time, current_date FROM kubernetes", "current_date"),
        ("SELECT time FROM kubernetes WHERE time > current_timestamp", "now"),
        ("SELECT random() AS r FROM kubernetes", "random"),
        ("SELECT uuid() AS r FROM kubernetes", "uuid"),
        ("SELECT verb FROM kubernetes LIMIT 1", "LIMIT without ORDER BY"),
        ("SELECT verb FROM (SELECT verb FROM kubernetes LIMIT 1)", "LIMIT without ORDER BY"),
        ("SELECT verb FROM kubernetes WHERE verb IN (SELECT uuid())", "uuid"),
        ("SELECT verb FROM kubernetes GROUP BY verb HAVING approx_distinct(raw) > 3", "approximate"),
    ];
    for (sql, part) in refused {
        match plan_rule(&ctx, sql).await {
            Err(error) => assert!(error.to_string().contains(part), "{sql}: {error}"),
            Ok(_) => panic!("{sql} was not refused"),
        }
    }
    for sql in [
        "SELECT verb FROM kubernetes ORDER BY time LIMIT 1",
        "SELECT verb, approx_distinct(raw) AS about FROM kubernetes GROUP BY verb HAVING count(*) > 3",
        "WITH x AS (SELECT verb FROM kubernetes) SELECT verb FROM x",
    ] {
        plan_rule(&ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[tokio::test]
async fn mistakes_say_where_and_what_was_meant() {
    let check = async |sql: &str, expected: &str| {
        let error = run(sql).await.expect_err(sql);
        assert_eq!(error.to_string(), expected, "{sql}");
    };
    check("SELECT\n  verbs\nFROM kubernetes", "line 2, column 3: unknown column `verbs`\nhint: did you mean `verb`?")
        .await;
    check(
        "SELECT verb FROM kubernets",
        "line 1, column 18: unknown table `kubernets`\nhint: did you mean `kubernetes`?",
    )
    .await;
    check(
        "SELECT 1 FROM x",
        "line 1, column 15: unknown table `x`\nhint: there are cloudtrail, events, kubernetes, kubernetes_calls",
    )
    .await;
    check(
        "SELECT lowr(verb) FROM kubernetes",
        "line 1, column 8: unknown function `lowr`\nhint: did you mean `lower`?",
    )
    .await;
    check(
        "SELECT 1 FROM read_csv('x')",
        "line 1, column 15: unknown table function `read_csv`\nhint: only registered tables can be read",
    )
    .await;
    let error = run("SELECT FROM WHERE\n x x x").await.expect_err("no SQL").to_string();
    assert!(error.starts_with("line "), "{error}");
}

#[tokio::test]
async fn json_and_address_functions_work_in_sql() {
    check("SELECT raw->'a'->>'b' FROM kubernetes WHERE raw->'a'->>'b' = 'x'", &["x"]).await;
    check("SELECT json_get_int(raw, 'n') FROM kubernetes WHERE json_get_int(raw, 'n') > 6", &["7"]).await;
    check("SELECT raw->>'n' AS n FROM kubernetes WHERE raw->>'n' IS NOT NULL", &["7"]).await;
    check(
        "SELECT time FROM kubernetes WHERE cidr_match(src_endpoint_ip, '10.0.0.0/8')",
        &["1970-01-01T00:00:00.000002Z"],
    )
    .await;
    check("SELECT count(*) FROM kubernetes WHERE NOT cidr_match(src_endpoint_ip, '10.0.0.0/8')", &["6"]).await;
    check("SELECT src_endpoint_ip FROM kubernetes WHERE ip_is_public(src_endpoint_ip)", &["8.8.8.8"]).await;
    let error = run("SELECT 1 FROM kubernetes WHERE cidr_match(src_endpoint_ip, '10.0.0/8')").await;
    assert!(error.is_err());
}

#[tokio::test]
async fn views_choose_one_row_per_request_and_span_sources() {
    check(
        "SELECT verb, stage FROM kubernetes_calls ORDER BY time",
        &["get|ResponseComplete", "watch|ResponseStarted", "create|ResponseStarted", "list|Panic"],
    )
    .await;
    check("SELECT count(*) FROM events", &["8"]).await;
    check(
        "SELECT e.time FROM events e WHERE e.time > arrow_cast(7, 'Timestamp(Microsecond, Some(\"UTC\"))')",
        &["1970-01-01T00:00:00.000008Z"],
    )
    .await;
    assert!(run("SELECT verb FROM events").await.is_err(), "events has common columns only");
}

#[tokio::test]
async fn minus_infinity_compares() {
    check(
        "SELECT verb FROM kubernetes WHERE source_watermark < arrow_cast('2024-01-01T00:00:00Z', \
         'Timestamp(Microsecond, Some(\"UTC\"))')",
        &["list"],
    )
    .await;
}

#[tokio::test]
async fn limits_end_a_hunt_visibly() {
    let rows = |rows_max| HuntLimits { rows_max, ..HuntLimits::default() };
    let sql = "SELECT time FROM kubernetes";
    assert_eq!(run_within(sql, rows(7)).await.expect("seven rows").len(), 7);
    assert!(matches!(run_within(sql, rows(6)).await, Err(QueryError::RowsMax { rows_max: 6 })));
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b \
                   WHERE a.value % 7 = b.value % 11";
    let soon = HuntLimits { timeout: Duration::from_millis(200), ..HuntLimits::default() };
    assert!(matches!(run_within(endless, soon).await, Err(QueryError::Timeout { .. })));
    let hungry = "SELECT value FROM generate_series(1, 100000000) ORDER BY value % 7";
    let ctx = session(&Limits { memory_bytes: 1 << 20, ..Limits::RULE });
    let plan = plan_hunt(&ctx, hungry).await.expect("plans");
    let error = collect(&ctx, plan, HuntLimits::default()).await.expect_err("a megabyte is not enough");
    assert!(matches!(error, QueryError::Memory(_)), "{error}");
}
