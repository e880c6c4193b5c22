//! A stored table for DataFusion: committed segments through its own Parquet source (filters pushed into the scan,
//! page index used), segments that lack a column asked for through a reader that computes it, the unsealed rows as
//! in-memory batches beside them. Every scan takes its own snapshot; no exact statistics of segments are reported, so
//! that no count is frozen into a plan.
//!
//! The session must have the local file system registered for `file://` (DataFusion's default).

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use event::{TableSchema, column};
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::adapter::Layouts;
use crate::scan::{Computed, OpenSegments, external};
use crate::segment::{Segment, SegmentMeta, Span};
use crate::store::Inner;

pub(crate) struct Provider {
    store: Arc<Inner>,
    table: Arc<TableSchema>,
    rows: Which,
}

/// Which rows a provider shows.
pub(crate) enum Which {
    All,
    Committed,
    /// Those of some segments, whatever the manifest says meanwhile.
    Segments(Arc<Vec<Arc<Segment>>>),
}

impl Provider {
    pub fn new(store: Arc<Inner>, table: Arc<TableSchema>, rows: Which) -> Provider {
        Provider { store, table, rows }
    }

    fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = self.store.snapshot().map_err(external)?;
        let schema = self.table.arrow();
        let predicate = conjunction(filters.to_vec())
            .map(|all| state.create_physical_expr(all, &DFSchema::try_from(schema.clone())?))
            .transpose()?;
        let segments = match &self.rows {
            Which::Segments(some) => some,
            _ => &snapshot.segments,
        };
        let of_table = segments.iter().filter(|segment| segment.meta.table == self.table.name);
        let segments: Vec<Arc<Segment>> = of_table.cloned().collect();
        let segments = prune(segments, predicate.as_ref(), &schema)?;
        let (outdated, segments) = self.outdated(segments, projection, filters)?;
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !outdated.is_empty() {
            parts.push(compute_columns(state, outdated, &schema, projection)?);
        }
        if !segments.is_empty() {
            // A limit may only stop the scan if no filter is applied after it.
            let limit = limit.filter(|_| filters.is_empty());
            parts.push(scan_segments(state, &segments, &schema, predicate, projection, limit)?);
        }
        let unsealed = match self.rows {
            Which::All => snapshot.unsealed(&self.table.name),
            _ => Vec::new(),
        };
        if !unsealed.is_empty() || parts.is_empty() {
            parts.push(MemorySourceConfig::try_new_exec(&[unsealed], schema, projection.cloned())?);
        }
        UnionExec::try_new(parts)
    }

    /// Segments whose files lack a column that this scan needs, and the others.
    fn outdated(
        &self,
        segments: Segments,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<(Segments, Segments)> {
        let read = |index: usize| projection.is_none_or(|projection| projection.contains(&index));
        let filtered: HashSet<&Column> = filters.iter().flat_map(Expr::column_refs).collect();
        let needed = |name: &str| {
            self.table.columns.iter().position(|column| column.name == name).is_some_and(read)
                || filtered.iter().any(|column| column.name == name)
        };
        let (mut outdated, mut current) = (Vec::new(), Vec::new());
        for segment in segments {
            let lacking = segment.lacking().map_err(external)?.iter().any(|name| needed(name));
            if lacking { outdated.push(segment) } else { current.push(segment) }
        }
        Ok((outdated, current))
    }
}

type Segments = Vec<Arc<Segment>>;

/// The filters of the scan are inexact: they are applied again above it.
fn compute_columns(
    state: &dyn Session,
    segments: Vec<Arc<Segment>>,
    schema: &SchemaRef,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = match projection {
        Some(projection) => Arc::new(schema.project(projection)?),
        None => schema.clone(),
    };
    let mut groups = vec![Vec::new(); state.config().target_partitions().clamp(1, segments.len())];
    let count = groups.len();
    for (index, segment) in segments.into_iter().enumerate() {
        groups[index % count].push(segment);
    }
    let stream = |segments| -> Arc<dyn PartitionStream> { Arc::new(Computed { segments, schema: schema.clone() }) };
    let streams = groups.into_iter().map(stream).collect();
    Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), streams, None, [], false, None)?))
}

fn scan_segments(
    state: &dyn Session,
    segments: &[Arc<Segment>],
    schema: &SchemaRef,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options =
        TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
    let mut source = ParquetSource::new(schema.clone())
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(OpenSegments))
        .with_pushdown_filters(true)
        .with_enable_page_index(true);
    if let Some(predicate) = predicate {
        source = source.with_predicate(predicate);
    }
    let groups = state.config().target_partitions().clamp(1, segments.len());
    let mut files: Vec<Vec<PartitionedFile>> = vec![Vec::new(); groups];
    for (index, segment) in segments.iter().enumerate() {
        files[index % groups].push(file(segment)?);
    }
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
        .with_file_groups(files.into_iter().map(FileGroup::new).collect())
        .with_projection_indices(projection.cloned())?
        .with_expr_adapter(Some(Arc::new(Layouts)))
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

fn file(segment: &Arc<Segment>) -> Result<PartitionedFile> {
    let file = PartitionedFile::new_from_meta(ObjectMeta {
        location: ObjectPath::from_absolute_path(segment.data_path())?,
        // Segments never change, so caches may keep what they know of the path.
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: segment.data_bytes(),
        e_tag: None,
        version: None,
    });
    Ok(file.with_extension(segment.clone()))
}

/// Drops segments whose times cannot satisfy the predicate.
fn prune(
    segments: Vec<Arc<Segment>>,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
) -> Result<Vec<Arc<Segment>>> {
    let Some(predicate) = predicate else { return Ok(segments) };
    let Ok(pruning) = PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(predicate.clone())
    else {
        return Ok(segments);
    };
    let keep = pruning.prune(&Times(&segments))?;
    Ok(segments.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(segment, _)| segment).collect())
}

/// What the segments' descriptions say of their columns.
struct Times<'a>(&'a [Arc<Segment>]);

impl Times<'_> {
    fn each(&self, column: &Column, end: fn(&Span) -> i64) -> Option<ArrayRef> {
        let span: fn(&SegmentMeta) -> &Span = match column.name.as_str() {
            column::TIME => |meta| &meta.time,
            column::INGEST_TIME => |meta| &meta.ingest_time,
            _ => return None,
        };
        let values = self.0.iter().map(|segment| end(span(&segment.meta)));
        Some(Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC")))
    }
}

impl PruningStatistics for Times<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.each(column, |span| span.first)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.each(column, |span| span.last)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let zero: ArrayRef = Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|_| 0)));
        matches!(column.name.as_str(), column::TIME | column::INGEST_TIME).then_some(zero)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|segment| segment.meta.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({})", self.table.name)
    }
}

impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.table.arrow()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // Written out because planning here waits for nothing: the one async method of the trait.
    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
    {
        Box::pin(std::future::ready(self.plan(state, projection, filters, limit)))
    }
}
