//! `count` that counts different texts of all groups in one table. DataFusion's own has a table with room for 512 of them for each
//! group from its first row on: of a rule with some thousand groups that was 190 MB at each evaluation.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringViewArray, StringViewBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion::scalar::ScalarValue;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

pub fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(Count { stock: count_udaf() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Count {
    stock: Arc<AggregateUDF>,
}

fn counts_texts(args: &AccumulatorArgs) -> bool {
    let texts = |field: &FieldRef| matches!(field.data_type(), DataType::Utf8View | DataType::Utf8);
    args.is_distinct && args.expr_fields.len() == 1 && texts(&args.expr_fields[0])
}

impl AggregateUDFImpl for Count {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.stock.return_type(kinds)
    }

    fn is_nullable(&self) -> bool {
        self.stock.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.inner().state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        counts_texts(&args) || self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match counts_texts(&args) {
            true => Ok(Box::new(Texts::of(args.expr_fields[0].data_type().clone()))),
            false => self.stock.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.stock.reverse_udf()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.stock.order_sensitivity()
    }

    fn default_value(&self, kind: &DataType) -> Result<ScalarValue> {
        self.stock.default_value(kind)
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.stock.value_from_stats(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.stock.inner().set_monotonicity(kind)
    }
}

/// The different texts of each group.
struct Texts {
    kind: DataType,
    seen: HashTable<Text>,
    hasher: RandomState,
    bytes: Vec<u8>,
    counts: Vec<i64>,
}

/// A text within the bytes.
#[derive(Clone)]
struct Text {
    group: usize,
    at: Range<usize>,
}

impl Texts {
    fn of(kind: DataType) -> Texts {
        let hasher = RandomState::default();
        Texts { kind, seen: HashTable::new(), hasher, bytes: Vec::new(), counts: Vec::new() }
    }

    fn add(&mut self, group: usize, text: &str) {
        let (bytes, hasher) = (&mut self.bytes, &self.hasher);
        let hash = hasher.hash_one((group, text.as_bytes()));
        if self.seen.find(hash, |t| t.group == group && bytes[t.at.clone()] == *text.as_bytes()).is_some() {
            return;
        }
        let at = bytes.len()..bytes.len() + text.len();
        bytes.extend_from_slice(text.as_bytes());
        self.seen.insert_unique(hash, Text { group, at }, |t| hasher.hash_one((t.group, &bytes[t.at.clone()])));
        self.counts[group] += 1;
    }

    fn text(&self, text: &Text) -> &str {
        std::str::from_utf8(&self.bytes[text.at.clone()]).expect("whole texts were added")
    }

    fn emitted(&self, emit: EmitTo) -> &[i64] {
        match emit {
            EmitTo::All => &self.counts,
            EmitTo::First(n) => &self.counts[..n],
        }
    }

    /// Without the groups that are given away; the others move up.
    fn forget(&mut self, given: EmitTo) {
        let mut left = Texts::of(self.kind.clone());
        if let EmitTo::First(n) = given {
            left.counts.resize(self.counts.len() - n, 0);
            self.seen.iter().filter(|t| t.group >= n).for_each(|t| left.add(t.group - n, self.text(t)));
        }
        *self = left;
    }
}

impl GroupsAccumulator for Texts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.counts.resize(total, 0);
        let texts = cast(&values[0], &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        for (row, group) in groups.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && texts.is_valid(row) {
                self.add(*group, texts.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let counts = Int64Array::from(self.emitted(emit).to_vec());
        self.forget(emit);
        Ok(Arc::new(counts))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let counts = self.emitted(emit);
        let mut texts: Vec<&Text> = self.seen.iter().filter(|t| t.group < counts.len()).collect();
        texts.sort_unstable_by_key(|t| t.group);
        let values: StringViewArray = texts.into_iter().map(|t| Some(self.text(t))).collect();
        let lengths = OffsetBuffer::from_lengths(counts.iter().map(|n| *n as usize));
        let lists = self.lists(lengths, &values)?;
        self.forget(emit);
        Ok(vec![lists])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.counts.resize(total, 0);
        let lists: &ListArray = values[0]
            .as_list_opt()
            .ok_or_else(|| DataFusionError::Internal("different texts are handed on as lists".into()))?;
        let texts = cast(lists.values(), &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        for (ends, group) in lists.offsets().windows(2).zip(groups) {
            (ends[0] as usize..ends[1] as usize).for_each(|at| self.add(*group, texts.value(at)));
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let texts = cast(&values[0], &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        let counts =
            |row: usize| texts.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let mut kept = StringViewBuilder::new();
        (0..texts.len()).filter(|row| counts(*row)).for_each(|row| kept.append_value(texts.value(row)));
        let lengths = OffsetBuffer::from_lengths((0..texts.len()).map(|row| usize::from(counts(row))));
        Ok(vec![self.lists(lengths, &kept.finish())?])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
            + self.seen.capacity() * (size_of::<Text>() + 1)
            + self.bytes.capacity()
            + self.counts.capacity() * size_of::<i64>()
    }
}

impl Texts {
    fn lists(&self, lengths: OffsetBuffer<i32>, values: &StringViewArray) -> Result<ArrayRef> {
        let item = Arc::new(Field::new_list_field(self.kind.clone(), true));
        Ok(Arc::new(ListArray::try_new(item, lengths, cast(values, &self.kind)?, None)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::record_batch::RecordBatch;
    use datafusion::execution::context::{SessionConfig, SessionContext};
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    const SQL: &str = "SELECT g, count(DISTINCT t) AS all_of_them, count(DISTINCT t) FILTER (WHERE f) AS some, \
        count(DISTINCT arrow_cast(t, 'Utf8')) AS plain, count(DISTINCT f) AS of_flags, count(*) AS rows, count(t) AS texts \
        FROM t GROUP BY g ORDER BY g";

    /// Several partitions and small batches: states are made, handed on and merged.
    fn context(ours: bool, groups: usize, memory: usize) -> SessionContext {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)));
        let config = SessionConfig::new().with_target_partitions(3).with_batch_size(128);
        let ctx = SessionContext::new_with_config_rt(config, runtime.build_arc().expect("an environment"));
        if ours {
            ctx.register_udaf(function());
        }
        let row = |n: usize| (n.wrapping_mul(2_654_435_761) >> 7, n.wrapping_mul(40_503) >> 3);
        let rows: Vec<_> = (0..3 * groups).map(row).collect();
        let texts = rows.iter().map(|(a, b)| {
            (b % 11 != 0).then(|| format!("{}{}", ["short", "a text of more than twelve bytes"][b % 2], a % 5))
        });
        let batch = RecordBatch::try_from_iter([
            ("g", Arc::new(rows.iter().map(|(a, _)| Some((a % groups) as i64)).collect::<Int64Array>()) as ArrayRef),
            ("t", Arc::new(texts.collect::<StringViewArray>())),
            ("f", Arc::new(rows.iter().map(|(_, b)| (b % 7 != 0).then_some(b % 3 == 0)).collect::<BooleanArray>())),
        ]);
        let batch = batch.expect("columns of one length");
        let parts = (0..3).map(|n| vec![batch.slice(n * groups, groups)]).collect();
        let table = datafusion::datasource::MemTable::try_new(batch.schema(), parts).expect("parts of one schema");
        ctx.register_table("t", Arc::new(table)).expect("a free name");
        ctx
    }

    async fn answer(ctx: &SessionContext) -> Result<String> {
        let batches = ctx.sql(SQL).await?.collect().await?;
        Ok(arrow::util::pretty::pretty_format_batches(&batches)?.to_string())
    }

    #[tokio::test]
    async fn it_counts_as_the_one_it_stands_for() {
        for groups in [1, 2, 50, 3_000] {
            let (ours, stock) = (context(true, groups, usize::MAX), context(false, groups, usize::MAX));
            let (ours, stock) = (answer(&ours).await.expect("it counts"), answer(&stock).await.expect("it counts"));
            assert_eq!(ours, stock, "{groups} groups");
        }
    }

    #[tokio::test]
    async fn many_groups_are_counted_in_little_memory() {
        const MEMORY: usize = 24 << 20;
        assert!(answer(&context(true, 10_000, MEMORY)).await.is_ok());
        let stock = answer(&context(false, 10_000, MEMORY)).await.expect_err("the reason for all this");
        assert!(stock.to_string().contains("Resources exhausted"), "{stock}");
    }
}
