// A tokenizer.json and chat templates, read by libmythos_tokenizer (runtimes/tokenizer), which is opened when it is first
// needed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "mythos_runtime.hpp"

namespace mythos {

class JsonFile;  // a file that was read; tokenizers and streams share it

// BackendMissing where the library is not there; BundleError where the file cannot be read; RequestError where it has ids
// that the model's vocabulary has not.
std::shared_ptr<JsonFile> open_tokenizer_json(const std::string& path, std::int64_t vocab_size);
std::unique_ptr<Tokenizer> make_json_tokenizer(std::shared_ptr<JsonFile> file);

// Opens the library (BackendMissing).
void open_tokenizer_library();
// Whether a Jinja template has a text with the values of a JSON object; `out` is that text, or what is wrong. It runs in this
// process for as long as it likes: chat.cpp bounds it.
bool render_template(const std::string& source, const std::string& values, std::string& out);

}  // namespace mythos
