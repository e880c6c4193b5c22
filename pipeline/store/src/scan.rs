//! How DataFusion reads a segment: through a file that is open and a segment that is held, so that a merge or an
//! expiry during the query takes nothing away; and through [`Data::read`](crate::segment::Data::read) where columns
//! that the file lacks are asked for.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::{BoxFuture, FutureExt, ready};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::StoreError;
use crate::segment::Segment;

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
