//! The text of a batch. All string columns of a table are views into the same bytes: `raw` is copied once, what
//! stands in it as it is meant is a view of that copy, and only what has to be made (decoded escapes, joined ids)
//! is appended behind it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray, make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};

use crate::value;

/// A view is length, four bytes of prefix, block and offset, or length and up to twelve bytes
/// (https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout).
///
/// Views are made in this file only, and only of whole texts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View(u128);

const INLINE_MAX: usize = 12;
/// A block begins when the one before would grow beyond this. Small enough for allocators to keep at hand what is
/// freed: fresh pages from the kernel cost as much as hashing their bytes.
const BLOCK_MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub(crate) struct Arena {
    full: Vec<Buffer>,
    block: Vec<u8>,
    /// Bytes of the first block of the batch before: a guess at what this one's will have.
    bytes_before: usize,
}

/// Where a text lies that was added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    block: u32,
    offset: u32,
}

impl Arena {
    pub fn add(&mut self, text: &str) -> Place {
        if self.block.len() + text.len() > BLOCK_MAX && !self.block.is_empty() {
            self.end_block();
        }
        if self.block.capacity() == 0 {
            self.block.reserve(if self.full.is_empty() { self.bytes_before } else { BLOCK_MAX });
        }
        let place = Place { block: self.full.len() as u32, offset: self.block.len() as u32 };
        self.block.extend_from_slice(text.as_bytes());
        place
    }

    /// A view of text that is not there yet. Short text needs no place.
    pub fn view(&mut self, text: &str) -> View {
        if text.len() <= INLINE_MAX {
            return View(make_view(text.as_bytes(), 0, 0));
        }
        self.add(text).view(text, 0..text.len())
    }

    /// The blocks; starts anew.
    pub fn finish(&mut self) -> Blocks {
        self.bytes_before = self.full.first().map_or(self.block.len(), Buffer::len).min(BLOCK_MAX);
        self.end_block();
        Blocks { all: std::mem::take(&mut self.full).into(), none: Arc::new([]) }
    }

    fn end_block(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        block.shrink_to_fit();
        self.full.push(block.into());
    }
}

impl Place {
    /// A view of what is made of the text that was added here: of a part of it where it is one, else of a copy.
    pub fn view_or_add(self, text: &str, made: &str, arena: &mut Arena) -> View {
        match value::part_of(text, made) {
            Some(part) => self.view(text, part),
            None => arena.view(made),
        }
    }

    /// A view of a part of `text`, which is the one that was added here.
    #[inline]
    pub fn view(self, text: &str, part: Range<usize>) -> View {
        let (bytes, length) = (&text.as_bytes()[part.start..], text[part.clone()].len());
        if length > INLINE_MAX {
            let prefix = bytes.first_chunk().map_or(0, |prefix| u32::from_le_bytes(*prefix));
            let (block, offset) = (u128::from(self.block), u128::from(self.offset + part.start as u32));
            return View(offset << 96 | block << 64 | u128::from(prefix) << 32 | length as u128);
        }
        match bytes.first_chunk::<INLINE_CHUNK>() {
            // What follows the text is cut off.
            Some(chunk) => {
                let kept = (u128::from_le_bytes(*chunk) << 32) & (u128::MAX >> (8 * (INLINE_MAX - length)));
                View(kept | length as u128)
            }
            None => View(make_view(&bytes[..length], 0, 0)),
        }
    }
}

impl View {
    /// Is its text in itself, or within a block?
    #[inline]
    fn is_inline(self) -> bool {
        self.0 as u32 as usize <= INLINE_MAX
    }

    #[inline]
    fn is_within(self, blocks: &[Buffer]) -> bool {
        let (length, block, offset) = (self.0 as u32 as usize, (self.0 >> 64) as u32 as usize, (self.0 >> 96) as usize);
        blocks.get(block).is_some_and(|block| offset + length <= block.len())
    }
}

const INLINE_CHUNK: usize = 16;

/// The text of a finished batch, shared by its columns.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    all: Arc<[Buffer]>,
    none: Arc<[Buffer]>,
}

impl Blocks {
    /// Checks no text again: reading it a second time, when it has left the cache, took a sixth of all normalizing.
    #[allow(unsafe_code)]
    pub fn array(&self, views: Vec<View>, nulls: Option<NullBuffer>) -> StringViewArray {
        // A column of short texts does not need the blocks, so it does not keep them alive either.
        let mut inline = true;
        for view in &views {
            inline &= view.is_inline();
            assert!(view.is_inline() || view.is_within(&self.all), "a view of another batch");
        }
        assert!(nulls.as_ref().is_none_or(|nulls| nulls.len() == views.len()), "a row has a value or a null");
        let blocks = if inline { &self.none } else { &self.all };
        let views = ScalarBuffer::from(views.into_iter().map(|view| view.0).collect::<Vec<u128>>());
        if cfg!(test) {
            return StringViewArray::try_new(views, blocks.clone(), nulls).expect("views are of whole texts");
        }
        // SAFETY: `try_new` would find nothing wrong, and in tests is asked. What it checks of a view is its length, prefix
        // and padding, which `Place::view` and `make_view` wrote from a `&str` (slicing panics within a character); that a
        // longer one lies within a block, as asserted above; and that it is UTF-8 there: blocks are made of whole `&str`s
        // only, and a `Place` is asked for parts of the one that was added there.
        unsafe { StringViewArray::new_unchecked(views, blocks.clone(), nulls) }
    }

    pub fn column(&self, views: Vec<View>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(self.array(views, nulls))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn views_of_parts_are_the_parts() {
        let text = "é0123456789abcdefghijklmnopqrstuvwxyzä";
        let mut arena = Arena::default();
        arena.add("something before");
        let place = arena.add(text);
        let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let parts: Vec<_> =
            bounds.iter().flat_map(|a| bounds.iter().filter(move |b| *b >= a).map(|b| *a..*b)).collect();
        let mut views: Vec<View> = parts.iter().map(|part| place.view(text, part.clone())).collect();
        views.push(arena.view("made later on"));
        views.push(arena.view("short"));
        let array = arena.finish().array(views, None);
        for (row, part) in parts.iter().enumerate() {
            assert_eq!(array.value(row), &text[part.clone()]);
        }
        assert_eq!((array.value(parts.len()), array.value(parts.len() + 1)), ("made later on", "short"));
    }

    #[test]
    fn batches_of_any_size_are_whole() {
        let mut arena = Arena::default();
        for lengths in [&[][..], &[5], &[1000; 600], &[20, BLOCK_MAX + 1, 20], &[BLOCK_MAX, BLOCK_MAX - 20, 20, 20]] {
            let text = |i: usize, length: &usize| (i % 10).to_string().repeat(*length);
            let texts: Vec<String> = lengths.iter().enumerate().map(|(i, length)| text(i, length)).collect();
            let views = texts.iter().map(|text| arena.view(text)).collect();
            let array = arena.finish().array(views, None);
            assert!(array.iter().eq(texts.iter().map(|text| Some(text.as_str()))));
            let (bytes, held) = (lengths.iter().sum::<usize>(), array.get_array_memory_size());
            assert!(held <= bytes + bytes / 100 + 20 * lengths.len() + 200, "{held} for {bytes}");
        }
    }
}
