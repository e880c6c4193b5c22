//! Recomputing a column from stored `raw` gives what normalizing gave, for every column of every table.

use arrow::array::{AsArray, StringViewArray};
use event::{Recompute, Source, tables};

use super::{case_events, message, real_lines};
use crate::{Backfill, Normalizer, Schemas};

/// The meta columns are never asked for.
const META: usize = 15;

fn check(source: Source, messages: Vec<Vec<u8>>) {
    let schemas = Schemas::builtin();
    let backfill = Backfill::new(&schemas);
    let mut normalizer = Normalizer::new(&schemas);
    messages.into_iter().for_each(|bytes| normalizer.push(&message(source, bytes)));
    for batch in normalizer.finish().batches.iter().filter(|batch| &*batch.table != tables::UNPARSED) {
        let table = schemas.table(&batch.table).unwrap();
        let names: Vec<&str> = table.columns[META..].iter().map(|column| column.name.as_str()).collect();
        let raw = batch.rows.column_by_name("raw").unwrap().as_string_view();
        let all = backfill.recompute(table, &names, raw);
        assert_eq!(all.len(), names.len());
        for (name, column) in names.iter().zip(&all) {
            assert_eq!(&column, &batch.rows.column_by_name(name).unwrap(), "{name}");
            assert_eq!(column.data_type(), &table.column(name).unwrap().kind.arrow(), "{name}");
        }
        let single = backfill.recompute(table, &names[names.len() - 1..], raw);
        assert_eq!(&single[0], &all[names.len() - 1], "one alone is the same");
    }
}

#[test]
fn recomputed_columns_are_the_normalized_ones() {
    for (source, file) in [
        (Source::Kubernetes, "kubernetes/falco_traces.ndjson"),
        (Source::Kubernetes, "kubernetes/openshift_audit.ndjson"),
        (Source::Kubernetes, "kubernetes/misc.ndjson"),
        (Source::CloudTrail, "cloudtrail/misc.ndjson"),
        (Source::CloudTrail, "cloudtrail/traildiscover.ndjson"),
        (Source::CloudTrail, "cloudtrail/invictus.ndjson"),
        (Source::Falco, "falco/falco_docs.ndjson"),
    ] {
        check(source, real_lines(file));
    }
    for file in ["falco_k8saudit.ndjson", "stratus.ndjson", "panther.ndjson"] {
        for source in [Source::Kubernetes, Source::CloudTrail] {
            let events = case_events(file).into_iter().filter(|(s, _)| *s == source);
            check(source, events.map(|(_, event)| event.to_string().into_bytes()).collect());
        }
    }
}

#[test]
fn what_cannot_be_read_has_nulls_or_defaults() {
    let schemas = Schemas::builtin();
    let backfill = Backfill::new(&schemas);
    let raw = StringViewArray::from(vec![Some(r#"{"eventName":"E","errorCode":"x"}"#), Some("{"), None, Some("[1]")]);
    let table = schemas.table(tables::CLOUDTRAIL).unwrap();
    let columns = backfill.recompute(table, &["status", "event_name", "read_only", "no_such_column"], &raw);
    let texts =
        |column: usize| columns[column].as_string_view().iter().map(|t| t.map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(texts(0), ["Failure", "Success", "Success", "Success"].map(|t| Some(t.to_owned())));
    assert_eq!(texts(1), [Some("E".to_owned()), None, None, None]);
    assert_eq!((columns[2].null_count(), columns[3].null_count()), (4, 4));
    let unparsed = schemas.table(tables::UNPARSED).unwrap();
    assert_eq!(backfill.recompute(unparsed, &["bytes"], &raw)[0].null_count(), 4);
    assert!(backfill.recompute(table, &["status"], &StringViewArray::from(Vec::<&str>::new()))[0].is_empty());
}
