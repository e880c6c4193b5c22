//! What a rule that remembers makes of one event: whether it is new, what the state tables say of it, and what the
//! SELECT returns. Compiled once; evaluated over events that passed the conditions on themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter_record_batch, prep_null_mask_filter, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator};
use datafusion::physical_expr::PhysicalExpr;
use event::{Micros, TableSchema, column};
use query::{Problem, QueryError};

use super::mark::Mark;
use super::seen::{Answer, Key, Seen};
use super::shape::{FIRST_SEEN, Shape, take_apart};
use super::sieve::{Failed, Sieve, Sieved, both};
use super::state::StateTable;
use super::versions::Versions;
use crate::codec::{Codec, Encoded};
use crate::ident::Identity;
use crate::plan::has_subquery;
use crate::program::NotCompiled;

/// Longest interval of `first_seen`: beyond a year it is a mistake.
const INTERVAL_MAX_US: i64 = 366 * 86_400_000_000;

/// A rule with `first_seen` or state tables, compiled.
#[derive(Debug)]
pub struct Remembering {
    /// The events that pass the conditions on themselves: the columns that matter, then the keys of `first_seen`.
    pub sieve: Sieve,
    /// Those columns, for keeping an event until its judgement is final.
    pub events: Codec,
    events_schema: SchemaRef,
    pub first_seen: Option<FirstSeen>,
    joins: Vec<StateJoin>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
    /// History shorter than this before an event makes its finding a learning one. 0 for rules without `first_seen`.
    pub learning_us: i64,
}

#[derive(Debug)]
pub struct FirstSeen {
    pub interval_us: i64,
    pub keys: Codec,
    /// BLAKE3 of what it looks for and how far back, hex; not of what the rule does with it.
    pub meaning: String,
}

#[derive(Debug)]
struct StateJoin {
    state: Arc<StateTable>,
    /// Over the event and the tables joined before, in the order of the state table's key.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Further conditions of ON, over all of that and the state table.
    also: Option<Arc<dyn PhysicalExpr>>,
    outer: bool,
}

/// What is remembered, as a judgement needs it.
pub struct Recall<'a> {
    pub seen: Option<&'a Seen>,
    pub states: &'a BTreeMap<String, Versions>,
}

/// Events that fire.
pub struct Fired {
    /// What the SELECT returns.
    pub rows: RecordBatch,
    /// Which event each is of.
    pub from: Vec<u32>,
    /// The versions each was joined with: table and mark.
    pub versions: Vec<Vec<(String, Mark)>>,
    /// Events for which memory does not reach far enough.
    pub unknown: Vec<u32>,
}

/// Events that wait to be judged.
pub struct Events<'a> {
    pub rows: RecordBatch,
    pub marks: Vec<&'a Mark>,
    pub keys: Vec<Option<Key>>,
}

impl<'a> Events<'a> {
    fn slice(&self, from: usize, rows: usize) -> Events<'a> {
        Events {
            rows: self.rows.slice(from, rows),
            marks: self.marks[from..from + rows].to_vec(),
            keys: self.keys[from..from + rows].to_vec(),
        }
    }
}

impl Remembering {
    pub fn states(&self) -> impl Iterator<Item = &Arc<StateTable>> {
        self.joins.iter().map(|j| &j.state)
    }

    /// The key of `first_seen` for each row; `None` where it has a NULL, or the rule has no `first_seen`.
    pub fn keys(&self, sieved: &Sieved) -> Result<Vec<Option<Key>>> {
        let count = sieved.marks.len();
        let Some(encoded) = self.keys_of(sieved)? else { return Ok(vec![None; count]) };
        Ok((0..count).map(|row| encoded.whole(row).map(hash)).collect())
    }

    /// The values of those keys; `None` if the rule has no `first_seen`.
    pub fn keys_of(&self, sieved: &Sieved) -> Result<Option<Encoded>> {
        let columns = &sieved.rows.columns()[self.events_schema.fields().len()..];
        self.first_seen.as_ref().map(|first_seen| first_seen.keys.encode(columns)).transpose()
    }

    /// The columns of the events alone.
    pub fn events_of(&self, sieved: &Sieved) -> Result<RecordBatch> {
        let columns = sieved.rows.columns()[..self.events_schema.fields().len()].to_vec();
        batch(&self.events_schema, columns, sieved.marks.len())
    }

    /// Judges events. Never consults a clock or the order in which rows came. When an expression fails, the events are
    /// halved until only those at fault are left out.
    pub fn judge(&self, events: &Events<'_>, recall: &Recall<'_>, take: &mut dyn FnMut(Fired) -> Result<()>) -> Failed {
        self.halved(events, 0, recall, take)
    }

    fn halved(
        &self,
        events: &Events<'_>,
        offset: u32,
        recall: &Recall<'_>,
        take: &mut dyn FnMut(Fired) -> Result<()>,
    ) -> Failed {
        let rows = events.marks.len();
        let judged = self.try_judge(events, recall).and_then(|mut fired| {
            fired.from.iter_mut().chain(&mut fired.unknown).for_each(|row| *row += offset);
            take(fired)
        });
        match judged {
            Ok(()) => None,
            Err(error) if rows <= 1 => Some((rows as u64, error.strip_backtrace())),
            Err(_) => {
                let half = rows / 2;
                let first = self.halved(&events.slice(0, half), offset, recall, take);
                let second = self.halved(&events.slice(half, rows - half), offset + half as u32, recall, take);
                both(first, second)
            }
        }
    }

    fn try_judge(&self, events: &Events<'_>, recall: &Recall<'_>) -> Result<Fired> {
        let mut unknown = BTreeSet::new();
        let mut from: Vec<u32> = Vec::new();
        for (row, (mark, key)) in events.marks.iter().zip(&events.keys).enumerate() {
            let answer = match (recall.seen, &self.first_seen, key) {
                (_, None, _) => Answer::New,
                (Some(seen), Some(_), Some(key)) => seen.answer(*key, mark),
                _ => Answer::Seen,
            };
            if answer == Answer::Unknown {
                unknown.insert(row as u32);
            }
            if answer != Answer::Seen {
                from.push(row as u32);
            }
        }
        let mut rows = take_record_batch(&events.rows, &UInt32Array::from(from.clone()))?;
        let mut versions: Vec<Vec<(String, Mark)>> = vec![Vec::new(); from.len()];
        for join in &self.joins {
            let states = &recall.states[&join.state.name];
            unknown.extend(from.iter().filter(|row| !states.reaches(events.marks[**row as usize].time)));
            (rows, from, versions) = join.apply(states, rows, from, versions, &events.marks)?;
        }
        if let Some(filter) = &self.filter {
            let keep = truth(filter.as_ref(), &rows)?;
            rows = filter_record_batch(&rows, &keep)?;
            retain(&mut from, &keep);
            retain(&mut versions, &keep);
        }
        let count = rows.num_rows();
        let columns =
            self.exprs.iter().map(|e| e.evaluate(&rows)?.into_array(count)).collect::<Result<Vec<ArrayRef>>>()?;
        Ok(Fired { rows: batch(&self.output, columns, count)?, from, versions, unknown: unknown.into_iter().collect() })
    }
}

type Joined = (RecordBatch, Vec<u32>, Vec<Vec<(String, Mark)>>);

impl StateJoin {
    fn apply(
        &self,
        states: &Versions,
        rows: RecordBatch,
        mut from: Vec<u32>,
        mut versions: Vec<Vec<(String, Mark)>>,
        marks: &[&Mark],
    ) -> Result<Joined> {
        let count = rows.num_rows();
        let keys = self.keys.iter().map(|e| e.evaluate(&rows)?.into_array(count)).collect::<Result<Vec<_>>>()?;
        let keys = self.state.keys.encode(&keys)?;
        let mut shown: Vec<_> =
            (0..count).map(|row| keys.whole(row).and_then(|key| states.at(key, marks[from[row] as usize]))).collect();
        if let Some(also) = &self.also {
            let joined = self.beside(&rows, &self.state.columns(&shown)?)?;
            let holds = truth(also.as_ref(), &joined)?;
            shown.iter_mut().enumerate().filter(|(row, _)| !holds.value(*row)).for_each(|(_, s)| *s = None);
        }
        let joined = self.beside(&rows, &self.state.columns(&shown)?)?;
        for (versions, shown) in versions.iter_mut().zip(&shown) {
            versions.extend(shown.as_ref().map(|s| (self.state.table.clone(), s.mark.clone())));
        }
        if self.outer {
            return Ok((joined, from, versions));
        }
        let keep: BooleanArray = shown.iter().map(|s| Some(s.is_some())).collect();
        retain(&mut from, &keep);
        retain(&mut versions, &keep);
        Ok((filter_record_batch(&joined, &keep)?, from, versions))
    }

    fn beside(&self, rows: &RecordBatch, state: &[ArrayRef]) -> Result<RecordBatch> {
        let fields = rows.schema().fields().iter().chain(self.state.schema.fields()).cloned().collect::<Vec<_>>();
        let columns = rows.columns().iter().chain(state).cloned().collect();
        batch(&Arc::new(Schema::new(fields)), columns, rows.num_rows())
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn retain<T>(items: &mut Vec<T>, keep: &BooleanArray) {
    let mut keep = keep.values().iter();
    items.retain(|_| keep.next().unwrap_or(false));
}

/// NULL is not true.
fn truth(predicate: &dyn PhysicalExpr, rows: &RecordBatch) -> Result<BooleanArray> {
    let value = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
    let keep = value.as_boolean();
    Ok(if arrow::array::Array::null_count(keep) > 0 { prep_null_mask_filter(keep) } else { keep.clone() })
}

pub fn hash(bytes: &[u8]) -> Key {
    let hash = blake3::hash(bytes);
    Key::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has more than 16 bytes"))
}

/// Compiles a rule. `plan` is that of its whole text over `ctx`, in which stored tables, views and state tables are
/// empty.
pub async fn compile(
    ctx: &SessionContext,
    base: &SessionContext,
    schemas: &[Arc<TableSchema>],
    states: &[Arc<StateTable>],
    text: &str,
    plan: &LogicalPlan,
    learning_us: Option<i64>,
) -> Result<Remembering, QueryError> {
    if let Some(reason) = crate::plan::not_row_local(plan, true).map_err(QueryError::run)?
        && reason != "it joins tables"
    {
        return Err(not_row_local(reason, "give it a `window`"));
    }
    let named: Vec<_> = states.iter().map(|s| s.named()).collect();
    let shape =
        take_apart(text, &named).map_err(|r| not_row_local(&r.reason, r.hint.unwrap_or("give it a `window`")))?;
    let rest = query::plan_rule(ctx, &shape.rest).await?;
    let built = build(ctx, base, schemas, states, &shape, plan, &rest).await;
    let mut rule = built.map_err(|error| match error {
        NotCompiled::NotRowLocal(reason) => not_row_local(reason, "give it a `window`"),
        NotCompiled::NeverFires => Problem::new("the rule can never fire: its conditions contradict each other").into(),
        NotCompiled::Error(error) => error,
    })?;
    rule.learning_us = match (&rule.first_seen, learning_us) {
        (Some(_), Some(us)) => us,
        (Some(_), None) => super::LEARNING_DEFAULT_US,
        (None, None) => 0,
        (None, Some(_)) => {
            return Err(Problem::new("`learning` without first_seen").hint("only what is new is learned").into());
        }
    };
    Ok(rule)
}

fn not_row_local(reason: &str, hint: &str) -> QueryError {
    Problem::new(format!("a rule without a window looks at one row at a time, but {reason}")).hint(hint).into()
}

async fn build(
    ctx: &SessionContext,
    base: &SessionContext,
    schemas: &[Arc<TableSchema>],
    states: &[Arc<StateTable>],
    shape: &Shape,
    plan: &LogicalPlan,
    rest: &LogicalPlan,
) -> Result<Remembering, NotCompiled> {
    let state = ctx.state();
    let analyzed = state.analyzer().execute_and_check(rest.clone(), state.config_options(), |_, _| {})?;
    let parts = Parts::of(&analyzed)?;
    let used = parts.columns_of_events()?;
    type Qualified = (Option<TableReference>, Arc<Field>);
    let (fields, items): (Vec<Qualified>, Vec<String>) = parts
        .events
        .schema()
        .iter()
        .filter(|(table, field)| used.contains(&Column::new(table.cloned(), field.name())))
        .map(|(table, field)| ((table.cloned(), field.clone()), format!("\"{}\"", field.name())))
        .unzip();
    let keys = shape.keys.iter().flatten().enumerate().map(|(n, key)| format!("({key}) AS \"__key_{n}\""));
    let items = items.into_iter().chain(keys).collect::<Vec<_>>().join(", ");
    let tables: Vec<String> = crate::plan::scanned_tables(parts.events)?.into_iter().collect();
    let sieve = Sieve::compile(base, schemas, [items, shape.from.clone()], shape.filter.clone(), &tables).await?;

    let whole = sieve.schema.fields();
    let events_schema: SchemaRef = Arc::new(Schema::new(whole[..fields.len()].to_vec()));
    let first_seen = match &shape.keys {
        None => None,
        Some(written) => Some(FirstSeen {
            interval_us: interval(plan)?,
            meaning: meaning(shape, written, interval(plan)?),
            keys: codec(Arc::new(Schema::new(whole[fields.len()..].to_vec())))?,
        }),
    };
    let mut schema = DFSchema::new_with_metadata(fields, Default::default())?;
    let mut joins = Vec::new();
    for join in &parts.joins {
        let (compiled, after) = compile_join(&state, join, states, parts.events, schema)?;
        joins.push(compiled);
        schema = after;
    }
    let physical = |e: &Expr| crate::plan::physical(&state, e, &schema);
    Ok(Remembering {
        sieve,
        events: codec(events_schema.clone())?,
        events_schema,
        first_seen,
        filter: parts.filter.map(physical).transpose()?,
        exprs: parts.exprs.iter().map(physical).collect::<Result<Vec<_>>>()?,
        output: analyzed.schema().inner().clone(),
        joins,
        learning_us: 0,
    })
}

fn meaning(shape: &Shape, keys: &[String], interval_us: i64) -> String {
    let interval = interval_us.to_string();
    let parts = [shape.from.as_str(), shape.filter.as_deref().unwrap_or_default(), &interval];
    let parts = parts.into_iter().chain(keys.iter().map(String::as_str));
    parts.fold(Identity::new(), |id, part| id.part(part.as_bytes())).version()
}

fn codec(schema: SchemaRef) -> Result<Codec, NotCompiled> {
    if let Some(field) = schema.fields().iter().find(|f| !Codec::can_keep(f.data_type())) {
        let problem = Problem::new(format!("column `{}` cannot be kept", field.name()));
        return Err(NotCompiled::Error(problem.hint("take one value as text: ->> instead of ->").into()));
    }
    Ok(Codec::new(schema).map_err(DataFusionError::from)?)
}

/// The plan of a SELECT over joined tables, from the top down to the events.
struct Parts<'a> {
    exprs: &'a [Expr],
    filter: Option<&'a Expr>,
    /// The first one first.
    joins: Vec<&'a Join>,
    events: &'a LogicalPlan,
}

impl<'a> Parts<'a> {
    fn of(plan: &'a LogicalPlan) -> Result<Parts<'a>, NotCompiled> {
        let LogicalPlan::Projection(top) = plan else {
            return Err(NotCompiled::NotRowLocal("it does more than filter and compute columns"));
        };
        let (filter, mut events) = match top.input.as_ref() {
            LogicalPlan::Filter(filter) => (Some(&filter.predicate), filter.input.as_ref()),
            other => (None, other),
        };
        let mut joins = Vec::new();
        while let LogicalPlan::Join(join) = events {
            joins.push(join);
            events = join.left.as_ref();
        }
        joins.reverse();
        Ok(Parts { exprs: &top.expr, filter, joins, events })
    }

    /// The columns of the events that anything above them uses; always the time.
    fn columns_of_events(&self) -> Result<BTreeSet<Column>> {
        let of_join = |j: &Join| -> Vec<Expr> {
            j.on.iter().flat_map(|(l, r)| [l.clone(), r.clone()]).chain(j.filter.clone()).collect()
        };
        let all =
            self.exprs.iter().cloned().chain(self.filter.cloned()).chain(self.joins.iter().flat_map(|j| of_join(j)));
        let schema = self.events.schema();
        let mut used: BTreeSet<Column> = BTreeSet::new();
        for expr in all {
            used.extend(expr.column_refs().into_iter().filter(|c| schema.has_column(c)).cloned());
        }
        let (table, time) = schema.qualified_field_with_unqualified_name(column::TIME)?;
        used.insert(Column::new(table.cloned(), time.name()));
        Ok(used)
    }
}

/// The interval of the call of `first_seen`, which is in the plan as a constant.
fn interval(plan: &LogicalPlan) -> Result<i64, NotCompiled> {
    use datafusion::scalar::ScalarValue::IntervalMonthDayNano;
    let mut found = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && call.func.name() == FIRST_SEEN
                {
                    found = call.args.first().cloned();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let wrong = |message: &str| {
        let problem = Problem::new(message).hint("write first_seen(INTERVAL '30 days', column, …)");
        Err(NotCompiled::Error(problem.into()))
    };
    match found {
        Some(Expr::Literal(IntervalMonthDayNano(Some(i)), _)) if i.months != 0 => {
            wrong("the interval of first_seen has months, which are of no fixed length")
        }
        Some(Expr::Literal(IntervalMonthDayNano(Some(i)), _)) => {
            let us = i64::from(i.days).saturating_mul(86_400_000_000).saturating_add(i.nanoseconds / 1_000);
            match us {
                1..=INTERVAL_MAX_US => Ok(us),
                _ => wrong("the interval of first_seen is not between a microsecond and a year"),
            }
        }
        _ => wrong("first_seen does not begin with an interval"),
    }
}

fn compile_join(
    session: &SessionState,
    join: &Join,
    states: &[Arc<StateTable>],
    events: &LogicalPlan,
    before: DFSchema,
) -> Result<(StateJoin, DFSchema), NotCompiled> {
    let right = join.right.schema();
    let (table, _) = right.qualified_field(0);
    let name = crate::plan::scanned_tables(&join.right)?.pop_first().unwrap_or_default();
    let Some(state) = states.iter().find(|s| s.name == name) else {
        return Err(NotCompiled::NotRowLocal("it joins tables"));
    };
    let fields = state.schema.fields().iter().map(|f| (table.cloned(), f.clone()));
    let after = before.join(&DFSchema::new_with_metadata(fields.collect(), Default::default())?)?;
    let mut on = On::new(state, &before, right, events)?;
    for (left, right) in &join.on {
        on.take(Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), Operator::Eq, Box::new(right.clone()))));
    }
    for condition in join.filter.clone().map(split_conjunction_owned).unwrap_or_default() {
        if condition.exists(|e| Ok(has_subquery(e)))? {
            return Err(NotCompiled::NotRowLocal("it has a subquery"));
        }
        on.take(condition);
    }
    let (keys, also) = on.finish()?;
    for (expr, field) in keys.iter().zip(state.schema.fields()) {
        let kind = expr.get_type(&before)?;
        if kind != *field.data_type() {
            let message =
                format!("`{}` of the state table `{name}` is {}, not {kind}", field.name(), field.data_type());
            return Err(NotCompiled::Error(
                Problem::new(message).hint("both sides of = have one type: use CAST").into(),
            ));
        }
    }
    let compiled = StateJoin {
        state: state.clone(),
        keys: keys.iter().map(|e| crate::plan::physical(session, e, &before)).collect::<Result<Vec<_>>>()?,
        also: conjunction(also).map(|e| crate::plan::physical(session, &e, &after)).transpose()?,
        outer: join.join_type == JoinType::Left,
    };
    Ok((compiled, after))
}

/// The conditions of one ON, sorted into what they are for.
struct On<'a> {
    state: &'a StateTable,
    before: &'a DFSchema,
    right: &'a DFSchema,
    time: Expr,
    keys: BTreeMap<&'a str, Expr>,
    from: bool,
    to: bool,
    also: Vec<Expr>,
}

impl<'a> On<'a> {
    fn new(
        state: &'a StateTable,
        before: &'a DFSchema,
        right: &'a DFSchema,
        events: &LogicalPlan,
    ) -> Result<On<'a>, NotCompiled> {
        let (table, time) = events.schema().qualified_field_with_unqualified_name(column::TIME)?;
        let time = Expr::Column(Column::new(table.cloned(), time.name()));
        Ok(On { state, before, right, time, keys: BTreeMap::new(), from: false, to: false, also: Vec::new() })
    }

    fn take(&mut self, condition: Expr) {
        if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &condition {
            let sides =
                [(left.as_ref(), *op, right.as_ref()), (right.as_ref(), op.swap().unwrap_or(*op), left.as_ref())];
            for (event, op, state) in sides {
                let Some(name) = self.column(state) else { continue };
                if op == Operator::Eq && self.is_key(&name) && self.is_before(event) {
                    let key = self.state.key.iter().find(|k| **k == name).expect("it is one of the key");
                    self.keys.insert(key, event.clone());
                    return;
                }
                if op == Operator::GtEq && name == "valid_from" && *event == self.time {
                    self.from = true;
                    return;
                }
                if op == Operator::Lt && name == "valid_to" && *event == self.time {
                    self.to = true;
                    return;
                }
            }
        }
        self.also.push(condition);
    }

    /// The name of a column of the state table.
    fn column(&self, expr: &Expr) -> Option<String> {
        let Expr::Column(column) = expr else { return None };
        self.right.has_column(column).then(|| column.name.clone())
    }

    fn is_key(&self, name: &str) -> bool {
        self.state.key.iter().any(|k| k == name) && !self.keys.contains_key(name)
    }

    fn is_before(&self, expr: &Expr) -> bool {
        expr.column_refs().iter().all(|c| self.before.has_column(c))
    }

    fn finish(mut self) -> Result<(Vec<Expr>, Vec<Expr>), NotCompiled> {
        let name = &self.state.name;
        let wrong = |message: String, hint: String| Err(NotCompiled::Error(Problem::new(message).hint(hint).into()));
        if let Some(key) = self.state.key.iter().find(|k| !self.keys.contains_key(k.as_str())) {
            return wrong(
                format!("the join with the state table `{name}` does not say what its key column `{key}` equals"),
                format!("its key is {}: write {name}.{key} = …, of the same type", self.state.key.join(", ")),
            );
        }
        if !self.from || !self.to {
            return wrong(
                format!("the join with the state table `{name}` does not say when"),
                format!("add AND e.time >= {name}.valid_from AND e.time < {name}.valid_to"),
            );
        }
        let keys = self.state.key.iter().filter_map(|k| self.keys.remove(k.as_str())).collect();
        Ok((keys, self.also))
    }
}

/// When a row without any history before it begins to be learned.
pub fn is_learning(begin: Option<Micros>, time: Micros, learning_us: i64) -> bool {
    learning_us > 0 && begin.is_none_or(|begin| begin > time.saturating_sub(learning_us))
}
