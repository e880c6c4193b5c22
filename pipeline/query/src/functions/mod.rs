//! Our SQL functions, a file per family. All are immutable and total: what makes no sense gives NULL, false or an
//! empty list, never an error, so that one odd event cannot stop a rule. Only constants that can never be right
//! (an unknown lookup, a block that is none) are mistakes, found when the SQL is checked.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, StringViewArray, StringViewBuilder,
    UnionArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::{Lookups, Problem};

pub(crate) mod address;
pub(crate) mod count;
mod csr;
mod image;
mod lookup;
mod policy;
mod secret;
mod text;

pub(crate) fn all(lookups: &Arc<Lookups>) -> Vec<Arc<ScalarUDF>> {
    let families = [
        address::functions(),
        text::functions(),
        image::functions(),
        secret::functions(),
        csr::functions(),
        policy::functions(),
        lookup::functions(lookups),
    ];
    families.into_iter().flatten().map(|f| Arc::new(ScalarUDF::new_from_impl(f))).collect()
}

/// What is wrong with the constants in calls of our functions anywhere in `plan`.
pub(crate) fn check_constants(plan: &LogicalPlan) -> Result<Option<Problem>> {
    let mut problem = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && let Some(function) = call.func.inner().downcast_ref::<Function>()
                    && problem.is_none()
                {
                    let known: Vec<Known> = call.args.iter().map(literal).collect();
                    problem = (function.constants)(&known).err();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(problem)
}

fn literal(expr: &Expr) -> Known<'_> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(cast) => literal(&cast.expr),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// A constant text; `None` when the value is computed, or NULL.
type Known<'a> = Option<&'a str>;

/// What a function takes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Text, or what has one: whole numbers, true and false, and the values that `->` gives.
    Text,
    /// A list of texts, or one text.
    List,
}

type Constants = Arc<dyn Fn(&[Known]) -> Result<(), Problem> + Send + Sync>;
type Body = Arc<dyn Fn(&Args) -> Result<ArrayRef> + Send + Sync>;

struct Function {
    name: &'static str,
    takes: Vec<Takes>,
    /// What may follow, any number of times.
    more: Option<Takes>,
    returns: DataType,
    signature: Signature,
    constants: Constants,
    body: Body,
}

impl Function {
    fn new(
        name: &'static str,
        takes: &[Takes],
        returns: DataType,
        body: impl Fn(&Args) -> Result<ArrayRef> + Send + Sync + 'static,
    ) -> Function {
        Function {
            name,
            takes: takes.to_vec(),
            more: None,
            returns,
            signature: Signature::user_defined(Volatility::Immutable),
            constants: Arc::new(|_| Ok(())),
            body: Arc::new(body),
        }
    }

    /// A function of one text. NULL gives the result's default.
    fn of_text<T: Cell>(name: &'static str, value: impl Fn(&str) -> T + Send + Sync + 'static) -> Function {
        Function::new(name, &[Takes::Text], T::data_type(), move |args| Ok(each(&args.texts(0)?, &value)))
    }

    fn more(mut self, takes: Takes) -> Function {
        self.more = Some(takes);
        self
    }

    /// What must hold of the constants among the arguments, told when SQL is checked.
    fn constants(mut self, check: impl Fn(&[Known]) -> Result<(), Problem> + Send + Sync + 'static) -> Function {
        self.constants = Arc::new(check);
        self
    }

    fn coerce(&self, place: usize, given: &DataType) -> Result<DataType> {
        let takes = self.takes.get(place).copied().or(self.more).unwrap_or(Takes::Text);
        let item = match given {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)
                if takes == Takes::List =>
            {
                field.data_type()
            }
            DataType::Union(..) => return Ok(given.clone()),
            other => other,
        };
        let has_text = item.is_string() || item.is_integer() || matches!(item, DataType::Null | DataType::Boolean);
        match (has_text, std::ptr::eq(item, given)) {
            (true, true) => Ok(DataType::Utf8View),
            (true, false) => Ok(list_type()),
            (false, _) => Err(DataFusionError::Plan(format!(
                "`{}` takes text as value {}, not {given}\nhint: CAST(… AS VARCHAR)",
                self.name,
                place + 1
            ))),
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Of two sessions with different lookups, functions of one name differ.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let least = self.takes.len();
        if given.len() < least || (given.len() > least && self.more.is_none()) {
            let wanted = if self.more.is_some() { format!("at least {least}") } else { least.to_string() };
            return Err(DataFusionError::Plan(format!(
                "`{}` takes {wanted} values and has {}",
                self.name,
                given.len()
            )));
        }
        given.iter().enumerate().map(|(place, given)| self.coerce(place, given)).collect()
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = call.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { call.number_rows };
        let answer = (self.body)(&Args { values: &call.args, rows })?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answer, 0)?)),
            false => Ok(ColumnarValue::Array(answer)),
        }
    }
}

/// The arguments of a call on one batch.
struct Args<'a> {
    values: &'a [ColumnarValue],
    rows: usize,
}

impl Args<'_> {
    /// The value, if it is a constant; a constant NULL is `Some(None)`.
    fn constant(&self, place: usize) -> Option<Option<&str>> {
        match &self.values[place] {
            ColumnarValue::Scalar(value) => Some(value.try_as_str().flatten()),
            ColumnarValue::Array(_) => None,
        }
    }

    fn known(&self) -> Vec<Known<'_>> {
        (0..self.values.len()).map(|place| self.constant(place).flatten()).collect()
    }

    fn texts(&self, place: usize) -> Result<StringViewArray> {
        let values = self.values[place].to_array(self.rows)?;
        match values.data_type() {
            DataType::Union(..) => Ok(union_texts(values.as_union())),
            DataType::Utf8View => Ok(values.as_string_view().clone()),
            _ => Ok(cast(&values, &DataType::Utf8View)?.as_string_view().clone()),
        }
    }

    /// The texts of each row: of a list its values, of a text itself.
    fn lists(&self, place: usize) -> Result<Vec<Vec<String>>> {
        let values = match &self.values[place] {
            // A constant is read once.
            ColumnarValue::Scalar(value) => value.to_array()?,
            ColumnarValue::Array(values) => values.clone(),
        };
        let texts =
            |array: &dyn Array| -> Vec<String> { array.as_string_view().iter().flatten().map(str::to_owned).collect() };
        let lists = match values.data_type() {
            DataType::List(_) => values.as_list::<i32>().iter().map(|l| l.map_or(vec![], |l| texts(&l))).collect(),
            DataType::Union(..) => each_text(&union_texts(values.as_union())),
            _ => each_text(cast(&values, &DataType::Utf8View)?.as_string_view()),
        };
        match (&self.values[place], lists) {
            (ColumnarValue::Scalar(_), lists) => Ok(vec![lists.into_iter().next().unwrap_or_default(); self.rows]),
            (ColumnarValue::Array(_), lists) => Ok(lists),
        }
    }
}

fn each_text(texts: &StringViewArray) -> Vec<Vec<String>> {
    texts.iter().map(|t| t.map(str::to_owned).into_iter().collect()).collect()
}

/// The values that `->` gives: text as it is, everything else as JSON has it.
fn union_texts(values: &UnionArray) -> StringViewArray {
    let text = |row: usize| {
        let (child, at) = (values.child(values.type_id(row)), values.value_offset(row));
        match child.data_type() {
            DataType::Null => None,
            _ if child.is_null(at) => None,
            DataType::Utf8 => Some(child.as_string::<i32>().value(at).to_owned()),
            _ => array_value_to_string(child, at).ok(),
        }
    };
    (0..values.len()).map(text).collect()
}

/// What a function gives for one row. The default is its answer to NULL.
trait Cell: Default {
    fn data_type() -> DataType;
    /// The array that has at each row the cell of that index.
    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef;
}

impl Cell for bool {
    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef {
        Arc::new(rows.iter().map(|r| Some(cells[*r])).collect::<BooleanArray>())
    }
}

impl Cell for Option<i64> {
    fn data_type() -> DataType {
        DataType::Int64
    }

    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef {
        Arc::new(rows.iter().map(|r| cells[*r]).collect::<Int64Array>())
    }
}

impl Cell for Option<f64> {
    fn data_type() -> DataType {
        DataType::Float64
    }

    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef {
        Arc::new(rows.iter().map(|r| cells[*r]).collect::<Float64Array>())
    }
}

impl Cell for Option<String> {
    fn data_type() -> DataType {
        DataType::Utf8View
    }

    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef {
        Arc::new(rows.iter().map(|r| cells[*r].as_deref()).collect::<StringViewArray>())
    }
}

impl Cell for Vec<String> {
    fn data_type() -> DataType {
        list_type()
    }

    fn array(cells: &[Self], rows: &[usize]) -> ArrayRef {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for row in rows {
            cells[*row].iter().for_each(|text| lists.values().append_value(text));
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

fn list_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
}

/// `value` of each row, computed once per distinct text: audit logs repeat themselves.
fn each<T: Cell>(texts: &StringViewArray, value: impl Fn(&str) -> T) -> ArrayRef {
    let (cells, rows) = distinct(texts.iter(), |text| text.map_or_else(T::default, &value));
    T::array(&cells, &rows)
}

/// The cells of distinct keys, and for each row which is its own.
fn distinct<K: Hash + Eq + Copy, T>(
    keys: impl Iterator<Item = K>,
    mut value: impl FnMut(K) -> T,
) -> (Vec<T>, Vec<usize>) {
    let mut cells = Vec::new();
    let mut known: HashMap<K, usize> = HashMap::new();
    let rows = keys
        .map(|key| {
            *known.entry(key).or_insert_with(|| {
                cells.push(value(key));
                cells.len() - 1
            })
        })
        .collect();
    (cells, rows)
}

/// A mistake met while running, in the words of the check.
fn refused(problem: Problem) -> DataFusionError {
    DataFusionError::Execution(problem.to_string())
}
