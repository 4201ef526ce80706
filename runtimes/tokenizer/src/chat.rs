//! Conversations as prompts, by the Jinja template that came with the model: mythos_runtime/template_worker.py in Rust.
//!
//! Settings, globals, filters and methods are those that such templates are written for (transformers'). What minijinja
//! shows otherwise than Python is shown as Python does: True, None, lists, and JSON with its spaces. Two differences
//! stay: `~` writes true and none in lower case, and of Python's methods only those of METHODS are here.

use std::ffi::CString;
use std::fmt::Write;
use std::io;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{escape_formatter, AutoEscape, Environment, Error, ErrorKind, State};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::python;

/// The text of `template` with a JSON object's values; what is wrong in the words of mythos_runtime/chat.py.
pub fn render(template: &str, values: &str) -> Result<String, String> {
    let values: serde_json::Value = serde_json::from_str(values).map_err(|error| error.to_string())?;
    let template = marks_taken_in(&template.replace("\r\n", "\n").replace('\r', "\n"));
    let environment = environment();
    let compiled = environment.template_from_str(&template).map_err(|error| match error.kind() {
        ErrorKind::SyntaxError => {
            let line = error.line().unwrap_or(1);
            format!("the chat template is not valid Jinja, line {line}: {}", words(&error))
        }
        _ => refusal(&error),
    })?;
    compiled.render(Value::from_serialize(values)).map_err(|error| refusal(&error))
}

fn refusal(error: &Error) -> String {
    format!("the chat template refuses this conversation: {}", words(error))
}

fn words(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_string)
}

/// `{% generation %}` marks what training learns from; a prompt takes it as it is. A condition that always holds leaves
/// the same text, and its marks cut the same white space.
fn marks_taken_in(template: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

fn environment() -> Environment<'static> {
    let mut made = Environment::new();
    made.set_trim_blocks(true);
    made.set_lstrip_blocks(true);
    made.set_auto_escape_callback(|_| AutoEscape::None);
    made.set_formatter(|out, state, value| match value.kind() {
        ValueKind::String | ValueKind::Undefined => escape_formatter(out, state, value),
        _ => out.write_str(&python::text(value)).map_err(Error::from),
    });
    made.set_unknown_method_callback(python::method);
    made.add_filter("tojson", tojson);
    made.add_filter("trim", python::trim);
    made.add_filter("string", |value: Value| python::text(&value));
    made.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    made.add_function("strftime_now", strftime_now);
    made
}

/// Python's json.dumps, without escapes for what is not ASCII.
fn tojson(_: &State, value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if value.is_undefined() || ascii == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes a value that is there, and no ensure_ascii"));
    }
    let fail = |error: serde_json::Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    let mut document = serde_json::to_value(&value).map_err(fail)?;
    if sorted == Some(true) {
        document.sort_all_objects();
    }
    let mut out = Vec::new();
    match indent {
        Some(spaces) => {
            let spaces = " ".repeat(spaces.min(64));
            let form = PrettyFormatter::with_indent(spaces.as_bytes());
            document.serialize(&mut Serializer::with_formatter(&mut out, form)).map_err(fail)?;
        }
        None => document.serialize(&mut Serializer::with_formatter(&mut out, Spaced)).map_err(fail)?,
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// One line, with a space behind every comma and colon.
struct Spaced;

impl Spaced {
    fn separator<W: ?Sized + io::Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separator(writer, first)
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separator(writer, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The local time now, as C's strftime writes it.
fn strftime_now(form: String) -> Result<String, Error> {
    let fail = || Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know the form {form:?}"));
    let asked = CString::new(form.as_str()).map_err(|_| fail())?;
    let mut text = vec![0u8; 16 * form.len() + 64];
    // SAFETY: the buffer's size is given, `asked` ends in a zero, and localtime_r fills the structure that strftime reads.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(fail());
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), asked.as_ptr(), &parts)
    };
    if written == 0 && !form.is_empty() {
        return Err(fail());
    }
    text.truncate(written);
    let mut out = String::new();
    write!(out, "{}", String::from_utf8_lossy(&text)).map_err(Error::from)?;
    Ok(out)
}
