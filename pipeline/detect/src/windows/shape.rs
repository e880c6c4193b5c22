//! Which rules can be kept as panes, and how: a row-local part, one aggregation, and a row-local rest over its groups.
//! Everything else is evaluated over the sieved window, and the reason is told.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::PhysicalExpr;
use event::TableSchema;
use query::QueryError;

use super::condition::{Condition, Understood, understand};
use super::extras::Kinds;
use super::groups::{LANES_MAX, ROWS};
use super::input::Part;
use super::keys::KeyCodec;
use crate::codec::Codec;
use crate::derive::EVIDENCE_COLUMN;
use crate::plan::{empty_tables, expression, not_row_local};
use crate::program::Step;

/// A rule as panes.
#[derive(Debug)]
pub struct Shape {
    pub parts: Vec<ShapePart>,
    pub codec: KeyCodec,
    pub lanes: usize,
    pub leasts: usize,
    /// The least of any type: what they are sorted by and are.
    pub firsts: Vec<Codec>,
    pub bags: Vec<BagShape>,
    /// One per aggregate, in the order of the aggregation's columns after the group's.
    pub outputs: Vec<Output>,
    /// Of the aggregation.
    pub schema: SchemaRef,
    /// Holds for every group that passes the HAVING.
    pub having: Condition,
    /// The condition is all of the HAVING.
    pub exact: bool,
    /// From the aggregation to the SELECT's rows.
    pub rest: Vec<Step>,
}

#[derive(Debug, PartialEq)]
pub struct BagShape {
    pub codec: Codec,
    /// A set.
    pub once: bool,
}

impl Shape {
    pub fn kinds(&self) -> Kinds {
        let bags = self.bags.iter().map(|bag| bag.once).collect();
        Kinds { leasts: self.leasts, firsts: self.firsts.len(), bags }
    }

    /// Both keep the same of the same rows, whatever each makes of it.
    pub fn has_panes_of(&self, other: &Shape) -> bool {
        let kept = |shape: &Shape| (shape.lanes, shape.leasts);
        kept(self) == kept(other)
            && self.codec == other.codec
            && self.firsts == other.firsts
            && self.bags == other.bags
            && self.parts == other.parts
    }
}

/// One stored table's share.
#[derive(Debug, PartialEq)]
pub struct ShapePart {
    pub input: Part,
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub feeds: Vec<Feed>,
}

/// What one aggregate takes from a row, besides that it is one.
#[derive(Debug, PartialEq)]
pub struct Feed {
    pub into: Into,
    pub argument: Option<Arc<dyn PhysicalExpr>>,
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// What comes before the argument in its codec.
    pub order: Vec<Arc<dyn PhysicalExpr>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    Count {
        lane: usize,
    },
    Distinct {
        lane: usize,
    },
    Sum {
        lane: usize,
        count: usize,
    },
    Least {
        least: usize,
        complement: bool,
    },
    /// NULL counts as a value or not.
    First {
        first: usize,
        nulls: bool,
    },
    Bag {
        bag: usize,
    },
}

/// How an aggregate's value is read from a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Lane(usize),
    Sum { lane: usize, count: usize },
    Average { lane: usize, count: usize },
    Least { least: usize, complement: bool },
    First(usize),
    Bag(usize),
}

/// Why a rule has no panes.
pub enum NoShape {
    Reason(String),
    Error(QueryError),
}

impl From<DataFusionError> for NoShape {
    fn from(error: DataFusionError) -> Self {
        NoShape::Error(QueryError::run(error))
    }
}

impl From<QueryError> for NoShape {
    fn from(error: QueryError) -> Self {
        NoShape::Error(error)
    }
}

fn no<T>(reason: impl std::convert::Into<String>) -> Result<T, NoShape> {
    Err(NoShape::Reason(reason.into()))
}

pub async fn shape(
    base: &SessionContext,
    schemas: &[Arc<TableSchema>],
    sql: &str,
    tables: &[String],
    entity: &[String],
) -> Result<Shape, NoShape> {
    let mut whole: Option<Shape> = None;
    for schema in schemas.iter().filter(|s| tables.contains(&s.name)) {
        let ctx = empty_tables(base, std::slice::from_ref(schema))?;
        let plan = match query::plan_rule(&ctx, sql).await {
            Ok(plan) => plan,
            Err(_) if tables.len() > 1 => return no("it names several tables"),
            Err(error) => return Err(error.into()),
        };
        let state = splittable(&ctx);
        let plan = state.optimize(&with_aggregate(plan)?)?;
        if let LogicalPlan::EmptyRelation(_) = plan {
            continue;
        }
        let (above, aggregate) = take_apart(&plan)?;
        let compiled = Aggregates::compile(&state, aggregate)?;
        let Some(input) = Part::of(&state, schema, &aggregate.input)? else { continue };
        input.try_on_nothing(schema)?;
        let physical = |e: &Expr| expression(&state, e.clone(), aggregate.input.schema());
        let keys = aggregate.group_expr.iter().map(physical).collect::<PlanResult<Vec<_>>>()?;
        let part = ShapePart { input, keys, feeds: compiled.feeds };
        match &mut whole {
            Some(shape) if shape.outputs == compiled.outputs => shape.parts.push(part),
            Some(_) => return no("its tables are aggregated differently"),
            None => {
                entity_from_keys(&plan, &above, aggregate, entity)?;
                if plan.schema().fields().iter().any(|f| f.name() == EVIDENCE_COLUMN) {
                    return no("it lists its evidence, which grows while it holds");
                }
                let (having, exact) = having(&above, aggregate, &compiled.outputs);
                whole = Some(Shape {
                    parts: vec![part],
                    codec: codec(aggregate)?,
                    lanes: compiled.lanes,
                    leasts: compiled.leasts,
                    firsts: compiled.firsts,
                    bags: compiled.bags,
                    outputs: compiled.outputs,
                    schema: aggregate.schema.inner().clone(),
                    having,
                    exact,
                    rest: rest(&state, &above)?,
                });
            }
        }
    }
    whole.map_or_else(|| no("none of its rows can pass"), Ok)
}

/// The optimizer without the rewrite that makes two aggregations of a count of distinct values.
fn splittable(ctx: &SessionContext) -> SessionState {
    let state = ctx.state();
    let rules = state.optimizers().iter().filter(|r| r.name() != "single_distinct_aggregation_to_group_by");
    let rules = rules.cloned().collect();
    SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules).build()
}

/// A SELECT without aggregation holds while any of its rows does: as groups, one per different row.
fn with_aggregate(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    match not_row_local(&plan, true)? {
        None => LogicalPlanBuilder::from(plan).distinct()?.build(),
        Some(_) => Ok(plan),
    }
}

/// The nodes above the one aggregation, top first. Below it everything is row-local.
fn take_apart(plan: &LogicalPlan) -> Result<(Vec<&LogicalPlan>, &Aggregate), NoShape> {
    let mut above = Vec::new();
    let mut at = plan;
    loop {
        at = match at {
            LogicalPlan::Aggregate(aggregate) => {
                return match not_row_local(&aggregate.input, false)? {
                    Some(reason) => no(format!("below its aggregation {reason}")),
                    None => Ok((above, aggregate)),
                };
            }
            LogicalPlan::Projection(projection) => {
                above.push(at);
                &projection.input
            }
            LogicalPlan::Filter(filter) => {
                above.push(at);
                &filter.input
            }
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            // The order of findings means nothing.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => return no("it has LIMIT"),
            LogicalPlan::Join(_) => return no("it joins tables"),
            LogicalPlan::Window(_) => return no("it has a window function"),
            LogicalPlan::Union(_) => return no("it has UNION"),
            other => return no(format!("it has {}", other.display())),
        };
    }
}

fn codec(aggregate: &Aggregate) -> Result<KeyCodec, NoShape> {
    let fields = &aggregate.schema.fields()[..aggregate.group_expr.len()];
    let kinds = fields.iter().map(|f| f.data_type().clone()).collect();
    KeyCodec::new(kinds).or_else(|kind| no(format!("it groups by a column of type {kind}")))
}

struct Aggregates {
    feeds: Vec<Feed>,
    outputs: Vec<Output>,
    lanes: usize,
    leasts: usize,
    firsts: Vec<Codec>,
    bags: Vec<BagShape>,
}

impl Aggregates {
    fn compile(state: &SessionState, aggregate: &Aggregate) -> Result<Aggregates, NoShape> {
        if aggregate.group_expr.is_empty() {
            return no("it does not group");
        }
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return no("it has grouping sets");
        }
        let mut compiled = Aggregates {
            feeds: Vec::new(),
            outputs: Vec::new(),
            lanes: ROWS + 1,
            leasts: 0,
            firsts: Vec::new(),
            bags: Vec::new(),
        };
        for expr in &aggregate.aggr_expr {
            let field = aggregate.schema.field(aggregate.group_expr.len() + compiled.outputs.len()).clone();
            compiled.one(state, aggregate, expr, &field)?;
        }
        match compiled.lanes {
            lanes if lanes > LANES_MAX => no(format!("it has more than {LANES_MAX} sums and counts")),
            _ => Ok(compiled),
        }
    }

    fn one(
        &mut self,
        state: &SessionState,
        aggregate: &Aggregate,
        expr: &Expr,
        field: &FieldRef,
    ) -> Result<(), NoShape> {
        let expr = match expr {
            Expr::Alias(alias) => alias.expr.as_ref(),
            other => other,
        };
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
            return no("one of its aggregates is not plain");
        };
        let name = func.name();
        let cannot = || no(format!("{name} cannot be kept as panes"));
        let is_sorted = !params.order_by.is_empty();
        let fits = match name {
            "first_value" | "last_value" => is_sorted,
            "array_agg" => true,
            _ => !is_sorted,
        };
        if !fits || params.null_treatment.is_some() || params.args.len() != 1 {
            return cannot();
        }
        let schema = aggregate.input.schema();
        let physical = |e: &Expr| expression(state, e.clone(), schema);
        let filter = params.filter.as_deref().map(physical).transpose()?;
        let argument = without_cast(&params.args[0], schema);
        let constant = matches!(argument, Expr::Literal(value, _) if !value.is_null());
        let kind = argument.get_type(schema.as_ref())?;
        let mut order = Vec::new();
        let (into, output) = match (name, params.distinct) {
            ("count", false) if constant && filter.is_none() => {
                self.outputs.push(Output::Lane(ROWS));
                return Ok(());
            }
            ("count", distinct) => {
                let lane = self.lane();
                let into = if distinct { Into::Distinct { lane } } else { Into::Count { lane } };
                if distinct && KeyCodec::new(vec![kind]).is_err() {
                    return cannot();
                }
                (into, Output::Lane(lane))
            }
            ("sum" | "avg", false) if kind.is_integer() && kind != DataType::UInt64 => {
                let (lane, count) = (self.lane(), self.lane());
                let output = match (name, field.data_type()) {
                    ("sum", DataType::Int64) => Output::Sum { lane, count },
                    ("avg", DataType::Float64) => Output::Average { lane, count },
                    _ => return cannot(),
                };
                (Into::Sum { lane, count }, output)
            }
            ("min" | "max" | "bool_or" | "bool_and", _) if is_ordered_number(&kind) => {
                let (least, complement) = (self.leasts, matches!(name, "max" | "bool_or"));
                self.leasts += 1;
                (Into::Least { least, complement }, Output::Least { least, complement })
            }
            ("min" | "max", _) if is_bytes(&kind) => {
                let Some(codec) = Codec::sorted(vec![(kind, ascending(name == "min"))]) else { return cannot() };
                let first = self.firsts.len();
                self.firsts.push(codec);
                (Into::First { first, nulls: false }, Output::First(first))
            }
            ("first_value" | "last_value" | "array_agg", _) => {
                let (mut kinds, reverse) = (Vec::new(), name == "last_value");
                for sort in &params.order_by {
                    let (descending, nulls_first) = (sort.asc == reverse, sort.nulls_first != reverse);
                    kinds.push((sort.expr.get_type(schema.as_ref())?, SortOptions { descending, nulls_first }));
                    order.push(physical(&sort.expr)?);
                }
                kinds.push((kind, ascending(true)));
                let Some(codec) = Codec::sorted(kinds) else { return cannot() };
                match name {
                    "array_agg" => {
                        self.bags.push(BagShape { codec, once: params.distinct });
                        let bag = self.bags.len() - 1;
                        (Into::Bag { bag }, Output::Bag(bag))
                    }
                    _ => {
                        self.firsts.push(codec);
                        let first = self.firsts.len() - 1;
                        (Into::First { first, nulls: true }, Output::First(first))
                    }
                }
            }
            _ => return cannot(),
        };
        let argument = if constant && matches!(into, Into::Count { .. }) { None } else { Some(physical(argument)?) };
        self.feeds.push(Feed { into, argument, filter, order });
        self.outputs.push(output);
        Ok(())
    }

    fn lane(&mut self) -> usize {
        self.lanes += 1;
        self.lanes - 1
    }
}

fn ascending(is: bool) -> SortOptions {
    SortOptions { descending: !is, nulls_first: true }
}

fn is_bytes(kind: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(kind, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

fn is_ordered_number(kind: &DataType) -> bool {
    (kind.is_integer() && *kind != DataType::UInt64) || matches!(kind, DataType::Timestamp(..) | DataType::Boolean)
}

/// Averages are taken of floats: the integers below the cast add up exactly.
fn without_cast<'a>(expr: &'a Expr, schema: &datafusion::common::DFSchema) -> &'a Expr {
    match expr {
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Float64 => match cast.expr.get_type(schema) {
            Ok(kind) if kind.is_integer() => &cast.expr,
            _ => expr,
        },
        _ => expr,
    }
}

/// Entity columns come from the group's columns only: then a group belongs to one entity for as long as it lives.
fn entity_from_keys(
    plan: &LogicalPlan,
    above: &[&LogicalPlan],
    aggregate: &Aggregate,
    entity: &[String],
) -> Result<(), NoShape> {
    for name in entity {
        let Some(index) = plan.schema().fields().iter().position(|f| f.name() == name) else {
            return no(format!("the entity column `{name}` is not in its plan"));
        };
        let mut columns = vec![index];
        for node in above {
            if let LogicalPlan::Projection(projection) = node {
                let input = projection.input.schema();
                let of = |i: &usize| projection.expr[*i].column_refs();
                columns = columns.iter().flat_map(of).filter_map(|c| input.maybe_index_of_column(c)).collect();
            }
        }
        if columns.iter().any(|index| *index >= aggregate.group_expr.len()) {
            return no(format!("the entity column `{name}` comes from an aggregate"));
        }
    }
    Ok(())
}

/// The filters that stand on the aggregation, as a condition over lanes.
fn having(above: &[&LogicalPlan], aggregate: &Aggregate, outputs: &[Output]) -> (Condition, bool) {
    let groups = aggregate.group_expr.len();
    let fields = aggregate.schema.fields();
    let lane_of = |name: &str| {
        let at = fields.iter().position(|f| f.name() == name)?;
        let unique = fields.iter().filter(|f| f.name() == name).count() == 1;
        match outputs.get(at.checked_sub(groups)?) {
            Some(Output::Lane(lane)) if unique => Some(*lane),
            _ => None,
        }
    };
    let mut understood = Understood { condition: Condition::Always, exact: true };
    let mut on_aggregate = true;
    for node in above.iter().rev() {
        match node {
            LogicalPlan::Filter(filter) if on_aggregate => {
                let also = understand(&filter.predicate, &lane_of);
                understood.exact &= also.exact;
                understood.condition = match (understood.condition, also.condition) {
                    (Condition::Always, other) | (other, Condition::Always) => other,
                    (a, b) => Condition::And(Box::new(a), Box::new(b)),
                };
            }
            LogicalPlan::Filter(_) => understood.exact = false,
            _ => on_aggregate = false,
        }
    }
    (understood.condition, understood.exact)
}

fn rest(state: &SessionState, above: &[&LogicalPlan]) -> PlanResult<Vec<Step>> {
    let mut steps = Vec::new();
    for node in above.iter().rev() {
        steps.push(match node {
            LogicalPlan::Filter(filter) => {
                Step::Keep(expression(state, filter.predicate.clone(), filter.input.schema())?)
            }
            LogicalPlan::Projection(projection) => {
                let compile = |e: &Expr| expression(state, e.clone(), projection.input.schema());
                let exprs = projection.expr.iter().map(compile).collect::<PlanResult<Vec<_>>>()?;
                Step::Compute { exprs, schema: node.schema().inner().clone() }
            }
            other => return Err(DataFusionError::Internal(format!("{} above an aggregation", other.display()))),
        });
    }
    Ok(steps)
}
