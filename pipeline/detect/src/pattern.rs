//! Regular expressions compiled once. DataFusion compiles the pattern of `~` anew for each batch, which for small batches
//! costs more than everything else that a rule does.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArrayType};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::scalar::ScalarValue;
use regex::Regex;

/// The same expression, with `~`, `~*`, `!~` and `!~*` against constants compiled.
pub fn compiled(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let compile = |expr: Arc<dyn PhysicalExpr>| {
        Ok(match expr.downcast_ref::<BinaryExpr>().and_then(Pattern::of) {
            Some(pattern) => Transformed::yes(Arc::new(pattern) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(expr),
        })
    };
    Ok(expr.transform_up(compile)?.data)
}

#[derive(Debug)]
pub(crate) struct Pattern {
    input: Arc<dyn PhysicalExpr>,
    regex: Regex,
    negated: bool,
}

impl Pattern {
    /// `None` where it is something else, or nothing that compiles: DataFusion reports that.
    fn of(expr: &BinaryExpr) -> Option<Pattern> {
        let (any_case, negated) = match expr.op() {
            Operator::RegexMatch => (false, false),
            Operator::RegexIMatch => (true, false),
            Operator::RegexNotMatch => (false, true),
            Operator::RegexNotIMatch => (true, true),
            _ => return None,
        };
        let text = expr.right().downcast_ref::<Literal>()?.value().try_as_str()??;
        let regex = Regex::new(&if any_case { format!("(?i){text}") } else { text.to_owned() }).ok()?;
        Some(Pattern { input: expr.left().clone(), regex, negated })
    }

    fn matches<'a>(&self, texts: impl StringArrayType<'a>) -> BooleanArray {
        let found = BooleanBuffer::collect_bool(texts.len(), |row| {
            !texts.is_null(row) && self.regex.is_match(texts.value(row)) != self.negated
        });
        BooleanArray::new(found, texts.nulls().cloned())
    }

    fn of_texts(&self, texts: &ArrayRef) -> Option<BooleanArray> {
        Some(match texts.data_type() {
            DataType::Utf8 => self.matches(texts.as_string::<i32>()),
            DataType::LargeUtf8 => self.matches(texts.as_string::<i64>()),
            DataType::Utf8View => self.matches(texts.as_string_view()),
            _ => return None,
        })
    }

    fn key(&self) -> (&str, bool) {
        (self.regex.as_str(), self.negated)
    }
}

impl PhysicalExpr for Pattern {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.input.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let value = self.input.evaluate(batch)?;
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let rows = if is_scalar { 1 } else { batch.num_rows() };
        let texts = value.into_array(rows)?;
        let found: ArrayRef = match self.of_texts(&texts) {
            Some(found) => Arc::new(found),
            None => {
                let texts = arrow::compute::cast(&texts, &DataType::Utf8View)?;
                Arc::new(self.matches(texts.as_string_view()))
            }
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(found),
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let regex = self.regex.clone();
        Ok(Arc::new(Pattern { input: children[0].clone(), regex, negated: self.negated }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.input.fmt_sql(f)?;
        write!(f, " {} '{}'", if self.negated { "!~" } else { "~" }, self.regex)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.input, if self.negated { "!~" } else { "~" }, self.regex)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key() && self.input.eq(&other.input)
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
        self.input.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, StringViewArray};
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{col, lit};

    use super::*;

    #[test]
    fn compiled_patterns_say_what_datafusion_says() {
        let texts = [Some("system:admin"), Some("SYSTEM:x"), Some(""), None, Some("a\nb"), Some("Ünï")];
        let arrays: [ArrayRef; 2] =
            [Arc::new(StringViewArray::from(texts.to_vec())), Arc::new(StringArray::from(texts.to_vec()))];
        for array in arrays {
            let schema = Arc::new(Schema::new(vec![Field::new("t", array.data_type().clone(), true)]));
            let batch = RecordBatch::try_new(schema.clone(), vec![array]).expect("one column");
            let pattern = |text: &str| match schema.field(0).data_type() {
                DataType::Utf8 => lit(ScalarValue::Utf8(Some(text.to_owned()))),
                _ => lit(ScalarValue::Utf8View(Some(text.to_owned()))),
            };
            for text in ["^system:", "(?i)^sys", "", "^$", "a.b", "\\w+", "ï$"] {
                for op in
                    [Operator::RegexMatch, Operator::RegexIMatch, Operator::RegexNotMatch, Operator::RegexNotIMatch]
                {
                    let column = col("t", &schema).expect("the column is there");
                    let theirs: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(column, op, pattern(text)));
                    let ours = compiled(theirs.clone()).expect("it compiles");
                    assert!(ours.is::<Pattern>());
                    let answer = |e: &Arc<dyn PhysicalExpr>| {
                        e.evaluate(&batch).and_then(|v| v.into_array(texts.len())).expect("evaluates")
                    };
                    assert_eq!(&answer(&ours), &answer(&theirs), "{op:?} {text}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_compile_is_left_to_fail_as_before() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8View, true)]));
        let column = col("t", &schema).expect("the column is there");
        let open = lit(ScalarValue::Utf8View(Some("(".to_owned())));
        let expr: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(column, Operator::RegexMatch, open));
        assert!(compiled(expr).expect("left alone").is::<BinaryExpr>());
    }
}
