//! Expressions over a table's columns as such over a file's (`segment/layout.rs`), for DataFusion: a column that is written as
//! another is that one, and `raw` is put together of what it was cut into.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapter, PhysicalExprAdapter, PhysicalExprAdapterFactory};

use crate::segment::layout::{self, Layout, Stored};

/// Writes expressions over a table's columns as such over a file's.
#[derive(Debug)]
pub struct Layouts;

impl PhysicalExprAdapterFactory for Layouts {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let layout = Layout::read(&file)
            .ok_or_else(|| DataFusionError::Execution("a file does not say how its columns are laid out".to_owned()))?;
        let fill = Arc::new(ScalarUDF::new_from_impl(Fill::new(layout.cut_by())));
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
                Stored::Cut => {
                    let needed = self.layout.needs(column.name());
                    let columns = needed.map(|name| self.column(name)).collect::<Result<_>>()?;
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
    /// The columns' names.
    by: Vec<String>,
    signature: Signature,
    /// What the last batch's columns were, and what came of them: a query often names `raw` more than once.
    last: Mutex<Option<(Vec<ArrayRef>, ArrayRef)>>,
}

impl Fill {
    fn new(by: &[String]) -> Fill {
        Fill { by: by.to_vec(), signature: Signature::variadic_any(Volatility::Immutable), last: Mutex::default() }
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
