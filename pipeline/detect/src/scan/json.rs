//! The paths that rules take into `raw`, followed once per row for all rules. Each call such as `raw->'a'->>'b'` becomes
//! a computed column: the path is followed here, and the function itself is then applied to what lies at its end, so
//! that what it makes of a value is its own business. A path is followed exactly as the function follows it (first of
//! equal keys, nothing looked at behind it), which a test compares.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use jiter::{Jiter, Peek};

use super::expr::{Expr, literal};
use super::fault::{Fault, injected};

/// Functions that look at the end of a path and nowhere else.
const FUNCTIONS: [&str; 11] = [
    "json_as_text",
    "json_contains",
    "json_get",
    "json_get_array",
    "json_get_bool",
    "json_get_float",
    "json_get_int",
    "json_get_json",
    "json_get_str",
    "json_length",
    "json_object_keys",
];

/// Calls on one column, each a computed column, in the order they were met.
#[derive(Debug)]
pub struct Json {
    /// The column of text that the paths lead into.
    pub raw: usize,
    /// The number of the first computed column.
    first: usize,
    calls: Vec<Call>,
    by_expr: HashMap<Expr, usize>,
    steps: Vec<Vec<Step>>,
    nodes: Vec<Node>,
    end: SchemaRef,
}

#[derive(Debug)]
struct Call {
    path: usize,
    /// The function over a batch whose only column is the end of the path.
    apply: Expr,
    field: Field,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Key(Box<str>),
    Index(i64),
}

/// Where a path, or the begin of one, leads.
#[derive(Debug, Default)]
struct Node {
    /// The path that ends here.
    path: Option<usize>,
    /// Sorted by step.
    children: Vec<(Step, usize)>,
}

impl Json {
    pub fn new(raw: usize, first: usize) -> Json {
        let end = Schema::new(vec![Field::new("end", DataType::Utf8View, true)]);
        Json {
            raw,
            first,
            calls: Vec::new(),
            by_expr: HashMap::new(),
            steps: Vec::new(),
            nodes: vec![Node::default()],
            end: Arc::new(end),
        }
    }

    /// The expression with the calls replaced by computed columns.
    pub fn rewrite(&mut self, expr: &Expr) -> Result<Expr> {
        expr.clone()
            .transform_up(|e| {
                Ok(match self.column(&e) {
                    Some(column) => Transformed::yes(column),
                    None => Transformed::no(e),
                })
            })
            .data()
    }

    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.calls.iter().map(|c| &c.field)
    }

    fn column(&mut self, expr: &Expr) -> Option<Expr> {
        let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
        let (subject, path) = function.args().split_first()?;
        if !FUNCTIONS.contains(&function.name()) || subject.downcast_ref::<Column>()?.index() != self.raw {
            return None;
        }
        let call = match self.by_expr.get(expr) {
            Some(call) => *call,
            None => {
                let steps = path.iter().map(step).collect::<Option<Vec<_>>>().filter(|s| !s.is_empty())?;
                let end: Expr = Arc::new(Column::new("end", 0));
                let apply = expr.clone().with_new_children(vec![end]).ok()?;
                let field = Field::new(format!("raw[{}]", self.calls.len()), function.return_type().clone(), true);
                let path = self.path(steps);
                self.calls.push(Call { path, apply, field });
                self.by_expr.insert(expr.clone(), self.calls.len() - 1);
                self.calls.len() - 1
            }
        };
        Some(Arc::new(Column::new(self.calls[call].field.name(), self.first + call)))
    }

    fn path(&mut self, steps: Vec<Step>) -> usize {
        if let Some(known) = self.steps.iter().position(|s| *s == steps) {
            return known;
        }
        let path = self.steps.len();
        let mut at = 0;
        for step in &steps {
            at = match self.nodes[at].children.binary_search_by(|(s, _)| s.cmp(step)) {
                Ok(child) => self.nodes[at].children[child].1,
                Err(place) => {
                    self.nodes.push(Node::default());
                    let new = self.nodes.len() - 1;
                    self.nodes[at].children.insert(place, (step.clone(), new));
                    new
                }
            };
        }
        self.nodes[at].path = Some(path);
        self.steps.push(steps);
        path
    }

    /// Computes columns for the rows of `raw` given: one pass over the text of each row.
    pub fn compute(&self, raw: &StringViewArray, rows: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let calls: Vec<&Call> = columns.iter().map(|c| &self.calls[c - self.first]).collect();
        let mut walk = Walk::new(self, calls.iter().map(|c| c.path));
        for row in rows.iter().map(|row| *row as usize) {
            walk.row(raw.is_valid(row).then(|| raw.value(row)));
        }
        let ends = walk.finish();
        let column = |call: &&Call| {
            let end = ends[call.path].clone().expect("every wanted path was followed");
            let batch = RecordBatch::try_new(self.end.clone(), vec![end])?;
            call.apply.evaluate(&batch)?.into_array(rows.len())
        };
        calls.iter().map(column).collect()
    }
}

/// NULL as a step leads nowhere; that is left to the function.
fn step(expr: &Expr) -> Option<Step> {
    match literal(expr)? {
        ScalarValue::Int64(Some(index)) => Some(Step::Index(*index)),
        value => value.try_as_str().flatten().map(|key| Step::Key(key.into())),
    }
}

struct Walk<'a> {
    json: &'a Json,
    /// Nodes on the way to a wanted path, with how many of their children are.
    wanted: Vec<Option<u32>>,
    /// The row in which a node was met last: of equal keys the first counts.
    met: Vec<u32>,
    row: u32,
    /// What was found in the row, by path.
    found: Vec<(u32, std::ops::Range<usize>)>,
    ends: Vec<Option<StringViewBuilder>>,
}

impl<'a> Walk<'a> {
    fn new(json: &'a Json, paths: impl Iterator<Item = usize>) -> Walk<'a> {
        let mut ends: Vec<Option<StringViewBuilder>> = json.steps.iter().map(|_| None).collect();
        paths.for_each(|path| ends[path] = Some(StringViewBuilder::new()));
        let mut wanted = vec![None; json.nodes.len()];
        // Children come after their parents.
        for node in (0..json.nodes.len()).rev() {
            let children = json.nodes[node].children.iter().filter(|(_, child)| wanted[*child].is_some()).count();
            let own = json.nodes[node].path.is_some_and(|path| ends[path].is_some());
            wanted[node] = (own || children > 0).then_some(children as u32);
        }
        let found = vec![(0, 0..0); json.steps.len()];
        Walk { json, wanted, met: vec![0; json.nodes.len()], row: 0, found, ends }
    }

    fn row(&mut self, text: Option<&str>) {
        self.row += 1;
        if let Some(text) = text {
            let mut jiter = Jiter::new(text.as_bytes());
            if let Ok(peek) = jiter.peek() {
                self.follow(0, jiter, peek, text);
            }
        }
        for (path, end) in self.ends.iter_mut().enumerate() {
            let Some(end) = end else { continue };
            match (&self.found[path], text) {
                ((row, range), Some(text)) if *row == self.row => end.append_value(&text[range.clone()]),
                _ => end.append_null(),
            }
        }
    }

    /// `jiter` stands at the value that `node` is for.
    fn follow(&mut self, node: usize, mut jiter: Jiter<'_>, peek: Peek, text: &str) {
        let Some(children) = self.wanted[node] else { return };
        let of = &self.json.nodes[node];
        if let Some(path) = of.path.filter(|path| self.ends[*path].is_some()) {
            let start = jiter.current_index();
            // What is broken inside is the function's to judge: it gets all there is.
            let mut behind = jiter.clone();
            let end = behind.known_skip(peek).map_or(text.len(), |()| behind.current_index());
            self.found[path] = (self.row, start..end);
        }
        if children == 0 {
            return;
        }
        match peek {
            Peek::Object => drop(self.follow_keys(node, &mut jiter, children, text)),
            Peek::Array => {
                for (step, child) in &of.children {
                    let index = match step {
                        Step::Key(key) => key.parse::<isize>().ok(),
                        Step::Index(index) => isize::try_from(*index).ok(),
                    };
                    let mut jiter = jiter.clone();
                    if let Some(peek) = index.and_then(|index| element(&mut jiter, index)) {
                        self.follow(*child, jiter, peek, text);
                    }
                }
            }
            _ => {}
        }
    }

    /// `None` when the object ends, or what is left of it cannot be read, before all keys were met.
    fn follow_keys(&mut self, node: usize, jiter: &mut Jiter<'_>, mut left: u32, text: &str) -> Option<()> {
        let children = &self.json.nodes[node].children;
        let mut child = find(children, jiter.known_object().ok()??);
        loop {
            let peek = jiter.peek().ok()?;
            let last_wins = injected(Fault::LastKeyWins);
            if let Some(child) = child
                && self.wanted[child].is_some()
                && (self.met[child] != self.row || last_wins)
            {
                self.met[child] = self.row;
                self.follow(child, jiter.clone(), peek, text);
                left -= u32::from(!last_wins);
                if left == 0 {
                    return Some(());
                }
            }
            jiter.known_skip(peek).ok()?;
            child = find(children, jiter.next_key().ok()??);
        }
    }

    fn finish(self) -> Vec<Option<ArrayRef>> {
        let finish = |mut end: StringViewBuilder| Arc::new(end.finish()) as ArrayRef;
        self.ends.into_iter().map(|end| end.map(finish)).collect()
    }
}

fn find(children: &[(Step, usize)], key: &str) -> Option<usize> {
    let order = |(step, _): &(Step, usize)| match step {
        Step::Key(own) => (**own).cmp(key),
        Step::Index(_) => std::cmp::Ordering::Greater,
    };
    children.binary_search_by(order).ok().map(|place| children[place].1)
}

/// Steps to an element; a negative index counts from the end.
fn element(jiter: &mut Jiter<'_>, index: isize) -> Option<Peek> {
    let index = match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => {
            let mut counting = jiter.clone();
            let mut count = 0usize;
            let mut item = counting.known_array().ok()?;
            while let Some(peek) = item {
                counting.known_skip(peek).ok()?;
                count += 1;
                item = counting.array_step().ok()?;
            }
            count.checked_add_signed(index)?
        }
    };
    let mut item = jiter.known_array().ok()??;
    for _ in 0..index {
        jiter.known_skip(item).ok()?;
        item = jiter.array_step().ok()??;
    }
    Some(item)
}
