//! The C interface of a `tokenizer.json` and of chat templates; its caller is runtimes/cpp/src/tokenizer_json.cpp, which
//! declares it again.
//!
//! Text is UTF-8 that the caller has checked. A function that can fail returns null or false and leaves the error's text
//! in `out`; else `out` has the answer. Buffers are the caller's to release. No panic leaves this library.

mod chat;
mod python;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;
use tokenizers::tokenizer::{step_decode_stream, DecodeStreamError};
use tokenizers::Tokenizer;

/// Changes whenever this interface does; the caller refuses another.
const INTERFACE: u32 = 2;

/// A stream shows what it has after this many tokens at the latest; a character has four bytes at most.
const MOST_PENDING: usize = 64;

#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    bytes: usize,
}

impl Buffer {
    fn set(&mut self, content: Vec<u8>) {
        let content = content.into_boxed_slice();
        self.bytes = content.len();
        self.data = Box::into_raw(content) as *mut u8;
    }
}

fn guarded<T>(out: &mut Buffer, work: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error,
        Err(_) => "the tokenizers library gave up".to_string(),
    };
    out.set(error.into_bytes());
    None
}

unsafe fn slice_of<'a, T>(data: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, count)
    }
}

#[no_mangle]
pub extern "C" fn mythos_tokenizer_interface() -> u32 {
    INTERFACE
}

/// # Safety
/// `buffer` was filled by a function of this library.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_release(buffer: Buffer) {
    if !buffer.data.is_null() {
        drop(Box::from_raw(slice::from_raw_parts_mut(buffer.data, buffer.bytes)));
    }
}

/// Reads the file's content. Truncation and padding, as training left them in the file, are off: a prompt is never cut.
///
/// # Safety
/// `json` has `bytes` bytes.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_read(json: *const u8, bytes: usize, out: &mut Buffer) -> *mut Tokenizer {
    guarded(out, || {
        let mut read = Tokenizer::from_bytes(slice_of(json, bytes)).map_err(|error| error.to_string())?;
        read.with_truncation(None).map_err(|error| error.to_string())?;
        read.with_padding(None);
        Ok(Box::into_raw(Box::new(read)))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// # Safety
/// `tokenizer` came from `mythos_tokenizer_read`, and its streams are closed.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_close(tokenizer: *mut Tokenizer) {
    drop(Box::from_raw(tokenizer));
}

/// The largest id that a token has; -1 where there is no token.
#[no_mangle]
pub extern "C" fn mythos_tokenizer_largest(tokenizer: &Tokenizer) -> i64 {
    tokenizer.get_vocab(true).values().max().map_or(-1, |id| i64::from(*id))
}

/// The ids of a text, each four bytes in `out`; `special`: with what the post-processor adds.
///
/// # Safety
/// `text` has `bytes` bytes.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_encode(
    tokenizer: &Tokenizer,
    text: *const u8,
    bytes: usize,
    special: bool,
    out: &mut Buffer,
) -> bool {
    let ids = guarded(out, || {
        let text = std::str::from_utf8(slice_of(text, bytes)).map_err(|error| error.to_string())?;
        let encoded = tokenizer.encode(text, special).map_err(|error| error.to_string())?;
        Ok(encoded.get_ids().iter().flat_map(|id| id.to_ne_bytes()).collect())
    });
    ids.map(|ids| out.set(ids)).is_some()
}

/// The text of ids, in `out`; special tokens and ids that are no token have none.
///
/// # Safety
/// `ids` has `count` elements.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_decode(
    tokenizer: &Tokenizer,
    ids: *const u32,
    count: usize,
    out: &mut Buffer,
) -> bool {
    let text = guarded(out, || decoded(tokenizer, slice_of(ids, count)));
    text.map(|text| out.set(text.into_bytes())).is_some()
}

fn decoded(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, String> {
    tokenizer.decode(ids, true).map_err(|error| error.to_string())
}

/// The text of a conversation, in `out`, by a Jinja template and a JSON object of the values that it may use. A template is
/// a stranger's program: it reaches nothing outside, but nothing here bounds its time and memory.
///
/// # Safety
/// `template` has `template_bytes` bytes, `values` has `value_bytes`.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_chat(
    template: *const u8,
    template_bytes: usize,
    values: *const u8,
    value_bytes: usize,
    out: &mut Buffer,
) -> bool {
    let text = guarded(out, || {
        let template = std::str::from_utf8(slice_of(template, template_bytes)).map_err(|error| error.to_string())?;
        let values = std::str::from_utf8(slice_of(values, value_bytes)).map_err(|error| error.to_string())?;
        chat::render(template, values)
    });
    text.map(|text| out.set(text.into_bytes())).is_some()
}

/// Ids one by one, text as it becomes certain; the same as mythos_runtime/tokenizer.py's.
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u32>,
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl Stream<'_> {
    fn feed(&mut self, id: u32) -> Result<String, String> {
        self.pending.push(id);
        let (ids, prefix, index) = (&mut self.ids, &mut self.prefix, &mut self.prefix_index);
        match step_decode_stream(self.tokenizer, vec![id], true, ids, prefix, index) {
            Ok(Some(text)) => {
                self.pending.clear();
                Ok(text)
            }
            Ok(None) if self.pending.len() < MOST_PENDING => Ok(String::new()),
            Ok(None) => self.finish(),
            // Broken bytes after whole characters can make byte-fallback decoders read those otherwise; what was shown
            // stays, and the stream begins anew with what came since.
            Err(error) if error.is::<DecodeStreamError>() => self.finish(),
            Err(error) => Err(error.to_string()),
        }
    }

    fn finish(&mut self) -> Result<String, String> {
        let text = decoded(self.tokenizer, &self.pending)?;
        self.pending.clear();
        self.ids.clear();
        self.prefix.clear();
        self.prefix_index = 0;
        Ok(text)
    }
}

#[no_mangle]
pub extern "C" fn mythos_tokenizer_stream<'a>(tokenizer: &'a Tokenizer) -> *mut Stream<'a> {
    let (pending, ids, prefix) = (Vec::new(), Vec::new(), String::new());
    Box::into_raw(Box::new(Stream { tokenizer, pending, ids, prefix, prefix_index: 0 }))
}

/// What this id completes, in `out`.
#[no_mangle]
pub extern "C" fn mythos_tokenizer_feed(stream: &mut Stream, id: u32, out: &mut Buffer) -> bool {
    let text = guarded(out, || stream.feed(id));
    text.map(|text| out.set(text.into_bytes())).is_some()
}

/// What is left at the end, in `out`; the stream begins anew.
#[no_mangle]
pub extern "C" fn mythos_tokenizer_finish(stream: &mut Stream, out: &mut Buffer) -> bool {
    let text = guarded(out, || stream.finish());
    text.map(|text| out.set(text.into_bytes())).is_some()
}

/// # Safety
/// `stream` came from `mythos_tokenizer_stream`.
#[no_mangle]
pub unsafe extern "C" fn mythos_tokenizer_stream_close(stream: *mut Stream) {
    drop(Box::from_raw(stream));
}
