// Conversations as prompts, by the Jinja template that came with the model (chat.py).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

namespace mythos {

// The bundle's template, which its manifest lists (BundleError).
std::string read_template(const std::string& folder, const std::string& path);
// The text of a conversation, and the words that open the model's turn. RequestError where the template is no Jinja, refuses
// the conversation, or takes long or much memory; BackendMissing without libmythos_tokenizer.
std::string render_chat(const std::string& source, const std::vector<ChatMessage>& messages,
                        const std::map<std::string, std::string>& special_tokens);

}  // namespace mythos
