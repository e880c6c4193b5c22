//! How DataFusion reads a segment: through a file that is open and a segment that is held, so that a merge or an
//! expiry during the query takes nothing away; with expressions over the file's columns in place of columns that it has in another
//! way; and through [`Data::read`](crate::segment::Data::read) where columns
//! that the file lacks are asked for.

use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapter, PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use event::column;
use futures::future::{BoxFuture, FutureExt, ready};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::StoreError;
use crate::segment::Segment;
use crate::segment::layout::{self, Layout, RAW_CUT, Stored};

/// Readers of files that carry their segment as an extension.
#[derive(Debug)]
pub struct OpenSegments;

impl ParquetFileReaderFactory for OpenSegments {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let segment = file.extension::<Arc<Segment>>().expect("the provider attaches it").clone();
        let path = segment.data_path();
        let file = File::open(&path).map_err(StoreError::io("open", &path)).map_err(external)?;
        Ok(Box::new(SegmentReader { segment, file }))
    }
}

pub fn external(error: StoreError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

struct SegmentReader {
    segment: Arc<Segment>,
    file: File,
}

impl SegmentReader {
    fn bytes(&self, range: &Range<u64>) -> parquet::errors::Result<Bytes> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        let path = self.segment.data_path();
        read.map_err(StoreError::io("read", &path)).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(bytes.into())
    }
}

// Local files: nothing here waits for anything but the disk.
impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        ready(self.bytes(&range)).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        ready(ranges.iter().map(|range| self.bytes(range)).collect()).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let data = self.segment.data().map_err(|error| ParquetError::External(Box::new(error)));
        ready(data.map(|data| data.metadata())).boxed()
    }
}

/// Writes expressions over a table's columns as such over a file's.
#[derive(Debug)]
pub struct Layouts;

impl PhysicalExprAdapterFactory for Layouts {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let layout = Layout::read(&file)
            .ok_or_else(|| DataFusionError::Execution("a file does not say how its columns are laid out".to_owned()))?;
        let fill = Arc::new(ScalarUDF::new_from_impl(Fill::new(&layout)));
        let plain = DefaultPhysicalExprAdapter::new(table, file.clone());
        Ok(Arc::new(LaidOut { layout, fill, file, plain }))
    }
}

#[derive(Debug)]
struct LaidOut {
    layout: Layout,
    fill: Arc<ScalarUDF>,
    file: SchemaRef,
    /// For columns that are as they are.
    plain: DefaultPhysicalExprAdapter,
}

impl LaidOut {
    fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Column::new(name, self.file.index_of(name)?)))
    }
}

impl PhysicalExprAdapter for LaidOut {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let rewritten = expr.transform_down(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let written = match self.layout.stored(column.name()) {
                Stored::As(name) if name == column.name() => self.plain.rewrite(expr)?,
                Stored::As(name) => self.column(name)?,
                Stored::Cut(by) => {
                    let columns = std::iter::once(RAW_CUT).chain(by.iter().map(String::as_str));
                    let columns = columns.map(|name| self.column(name)).collect::<Result<_>>()?;
                    Arc::new(ScalarFunctionExpr::try_new(self.fill.clone(), columns, &self.file, Arc::default())?)
                }
            };
            // What was written in its place is of the file, not of the table.
            Ok(Transformed::new(written, true, TreeNodeRecursion::Jump))
        });
        rewritten.data()
    }
}

/// Puts the texts of columns back into `raw`.
struct Fill {
    by: Vec<String>,
    signature: Signature,
    /// What the last batch's columns were, and what came of them: a query often names `raw` more than once.
    last: Mutex<Option<(Vec<ArrayRef>, ArrayRef)>>,
}

impl Fill {
    fn new(layout: &Layout) -> Fill {
        let by = match layout.stored(column::RAW) {
            Stored::Cut(by) => by.to_vec(),
            Stored::As(_) => Vec::new(),
        };
        Fill { by, signature: Signature::variadic_any(Volatility::Immutable), last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Option<(Vec<ArrayRef>, ArrayRef)>> {
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fill({:?})", self.by)
    }
}

impl PartialEq for Fill {
    fn eq(&self, other: &Fill) -> bool {
        self.by == other.by
    }
}

impl Eq for Fill {}

impl Hash for Fill {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.by.hash(state);
    }
}

impl ScalarUDFImpl for Fill {
    fn name(&self) -> &str {
        "fill_raw"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&call.args)?;
        if let Some((columns, raw)) = &*self.last()
            && columns.len() == arrays.len()
            && columns.iter().zip(&arrays).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Ok(ColumnarValue::Array(raw.clone()));
        }
        let (cut, columns) = arrays.split_first().expect("it is called by the adapter above only");
        let raw = layout::filled(cut, &columns.iter().collect::<Vec<_>>(), &self.by);
        let raw = raw.map_err(|what| DataFusionError::Execution(format!("a segment is damaged: {what}")))?;
        *self.last() = Some((arrays, raw.clone()));
        Ok(ColumnarValue::Array(raw))
    }
}

/// Segments whose files lack some of the columns asked for: those are computed batch by batch.
pub struct Computed {
    pub segments: Vec<Arc<Segment>>,
    pub schema: SchemaRef,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Computed({} segments)", self.segments.len())
    }
}

impl PartitionStream for Computed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let batches = self.segments.clone().into_iter().flat_map(move |segment| {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let reading = segment.data().and_then(|data| data.read(&names, 0..segment.rows()));
            let (rows, error) = match reading {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            rows.into_iter().flatten().chain(error)
        });
        let stream = futures::stream::iter(batches.map(|batch| batch.map_err(external)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}
